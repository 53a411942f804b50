//! Changes of verdicts, cell by cell, told in few products of classes that cover them exactly.

use std::sync::Arc;

use indexmap::IndexMap;
use rustc_hash::FxBuildHasher;

use super::packets::Answers;
use super::{Cell, Change, Partition};
use crate::flow::Verdict;

/// Of cells of (own, peers) classes and all services, in the order (own, peer, service).
pub fn changes(
    partition: &Arc<Partition>,
    members: &Arc<Vec<usize>>,
    (own, peers): (&[usize], &[usize]),
    answers: &Answers,
) -> Vec<Change> {
    let shape = [own.len(), peers.len(), partition.services.len()];
    let [old, new] = &answers.verdicts;
    let mut seen = [[false; Verdict::ALL.len()]; Verdict::ALL.len()];
    for (&old, &new) in old.iter().zip(new) {
        seen[usize::from(old)][usize::from(new)] |= old != new;
    }
    let mut found = Vec::new();
    for verdicts in (0..)
        .zip(&seen)
        .flat_map(|(old, row)| (0..).zip(row).filter(|one| *one.1).map(move |one| [old, one.0]))
    {
        let cells: Vec<bool> = old.iter().zip(new).map(|(&old, &new)| [old, new] == verdicts).collect();
        for [owns, others, services] in boxes(&cells, shape) {
            let at = (owns[0] * shape[1] + others[0]) * shape[2] + services[0];
            let cell = Cell {
                partition: Arc::clone(partition),
                own: own[owns[0]],
                peer: peers[others[0]],
                service: services[0],
                outcomes: [0, 1].map(|side| answers.outcomes[side][at]),
            };
            let is_whole = owns.len() == own.len();
            found.push(Change {
                members: Arc::clone(members),
                verdicts,
                own: (!is_whole).then(|| partition.own.edges(owns.iter().map(|&at| own[at]))),
                peers: partition.peers.edges(others.iter().map(|&at| peers[at])),
                services,
                cell,
            });
        }
    }
    found
}

/// Of each dimension some indexes.
type Box3 = [Vec<usize>; 3];

/// Disjoint products of indexes that make up the cells.
fn boxes(cells: &[bool], [_, peers, services]: [usize; 3]) -> Vec<Box3> {
    let mut found = Vec::new();
    for (plane, owns) in equal(cells.chunks(peers * services)) {
        if !plane.contains(&true) {
            continue;
        }
        let across: Vec<bool> = (0..services)
            .flat_map(|service| (0..peers).map(move |peer| plane[peer * services + service]))
            .collect();
        let (by_peer, by_service) = (products(plane, services), products(&across, peers));
        if by_peer.len() <= by_service.len() {
            found.extend(by_peer.into_iter().map(|(peers, services)| [owns.clone(), peers, services]));
        } else {
            found.extend(by_service.into_iter().map(|(services, peers)| [owns.clone(), peers, services]));
        }
    }
    found
}

/// Rows that are the same, and which columns they have; empty ones are left out.
fn products(plane: &[bool], width: usize) -> Vec<(Vec<usize>, Vec<usize>)> {
    let rows = equal(plane.chunks(width)).into_iter();
    let columns = |row: &[bool]| (0..width).filter(|&at| row[at]).collect::<Vec<_>>();
    rows.map(|(row, places)| (places, columns(row))).filter(|(_, columns)| !columns.is_empty()).collect()
}

/// Where each row is, in order of where it is first.
fn equal<'a>(rows: impl Iterator<Item = &'a [bool]>) -> IndexMap<&'a [bool], Vec<usize>, FxBuildHasher> {
    let mut found = IndexMap::<_, Vec<usize>, FxBuildHasher>::default();
    for (at, row) in rows.enumerate() {
        found.entry(row).or_default().push(at);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_cover_their_cells_once() {
        let shape = [3, 4, 5];
        for seed in 0_u64..200 {
            let cells: Vec<bool> =
                (0..60_u64).map(|at| (at * at * 31 + seed * (at + 7) * 17) % 5 < 2 + seed % 2).collect();
            let mut covered = vec![0; cells.len()];
            for [owns, peers, services] in boxes(&cells, shape) {
                for own in &owns {
                    for peer in &peers {
                        for service in &services {
                            covered[(own * 4 + peer) * 5 + service] += 1;
                        }
                    }
                }
            }
            assert_eq!(covered, cells.iter().map(|&cell| usize::from(cell)).collect::<Vec<_>>());
        }
    }

    #[test]
    fn nothing_is_in_no_box_and_everything_in_one() {
        assert!(boxes(&[false; 60], [3, 4, 5]).is_empty());
        assert_eq!(boxes(&[true; 60], [3, 4, 5]), [[vec![0, 1, 2], vec![0, 1, 2, 3], vec![0, 1, 2, 3, 4]]]);
    }
}
