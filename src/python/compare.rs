//! Two states of policy, compared place by place, for Python.

use std::collections::hash_map::Entry;
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::types::{PyBytes, PyTuple};
use rustc_hash::FxHashMap;

use super::question::hook;
use super::table::Table;
use super::value_error;
use crate::compare::{self, Kind, Place};
use crate::flow::{Direction, EndpointId, Family};
use crate::program::ChainId;
use crate::table::DecisionTable;

/// Two tables, the old one and the new one.
#[pyclass(frozen, module = "labelgate._core")]
pub struct TablePair {
    pair: compare::TablePair,
    tables: [Arc<DecisionTable>; 2],
}

/// One cell of a partition (opaque).
#[pyclass(frozen, module = "labelgate._core")]
pub struct Cell(compare::Cell);

/// (family, members, (old verdict, new verdict), own addresses, peers, services, one of the cells).
type ChangeTuple<'py> =
    (u8, Vec<usize>, (u8, u8), Option<Bound<'py, PyBytes>>, Bound<'py, PyBytes>, Bound<'py, PyTuple>, Cell);

#[pymethods]
impl TablePair {
    #[new]
    fn new(old: &Table, new: &Table) -> Self {
        let tables = [&old.0, &new.0].map(Arc::clone);
        let [old, new] = tables.clone();
        Self { pair: compare::TablePair::new(old, new), tables }
    }

    /// Every change of the policy of workloads, which share rules then and now.
    #[allow(clippy::needless_pass_by_value)] // Arguments arrive owned.
    fn workloads<'py>(
        &self,
        py: Python<'py>,
        egress: bool,
        chains: [Option<u32>; 2],
        members: Vec<[Option<u32>; 2]>,
    ) -> PyResult<Vec<ChangeTuple<'py>>> {
        self.check_chains(chains)?;
        let known = |side: usize, id: Option<u32>| {
            id.is_none_or(|id| (id as usize) < self.tables[side].program().endpoints.len())
        };
        if members.is_empty() || !members.iter().all(|both| known(0, both[0]) && known(1, both[1])) {
            return Err(value_error("members: expected endpoints of the tables, one at least"));
        }
        let members: Vec<_> =
            members.iter().map(|both| both.map(|id| id.map(EndpointId::from_number))).collect();
        let place = Place {
            kind: Kind::Workload,
            direction: direction(egress),
            at: None,
            workloads: members[0],
            chains: chains.map(|chain| chain.map(ChainId::from_number)),
        };
        tuples(py, py.detach(|| self.pair.changes(&place, &members)))
    }

    /// Every change of a kind of policy of host endpoints, asked about at one interface; members are 0.
    #[allow(clippy::needless_pass_by_value)] // Arguments arrive owned.
    fn interface<'py>(
        &self,
        py: Python<'py>,
        kind: &str,
        egress: bool,
        chains: [Option<u32>; 2],
        at: (PyBackedStr, PyBackedStr),
    ) -> PyResult<Vec<ChangeTuple<'py>>> {
        self.check_chains(chains)?;
        let kind = match kind {
            "normal" => Kind::Normal,
            "forward" => Kind::Forward,
            "untracked" => Kind::Untracked,
            "preDNAT" => Kind::Prednat,
            _ => return Err(value_error(format!("kind: found {kind}, expected one of host endpoints"))),
        };
        let place = Place {
            kind,
            direction: direction(egress),
            at: Some((hook(&at.0)?, &at.1)),
            workloads: [None; 2],
            chains: chains.map(|chain| chain.map(ChainId::from_number)),
        };
        tuples(py, py.detach(|| self.pair.changes(&place, &[])))
    }
}

impl TablePair {
    fn check_chains(&self, chains: [Option<u32>; 2]) -> PyResult<()> {
        for (table, chain) in self.tables.iter().zip(chains) {
            let known = table.program().chains.len();
            if let Some(chain) = chain.filter(|&chain| chain as usize >= known) {
                return Err(value_error(format!("chain {chain}: there are {known}")));
            }
        }
        Ok(())
    }
}

#[pymethods]
impl Cell {
    #[getter]
    fn outcomes(&self) -> (u32, u32) {
        let [old, new] = self.0.outcomes;
        (old, new)
    }

    /// Protocol, source port, destination port, fragment.
    #[getter]
    fn service(&self) -> (u8, u16, u16, bool) {
        let found = self.0.partition.services.samples[self.0.service];
        (found.protocol, found.source_port, found.destination_port, found.fragment)
    }

    /// The addresses of its class of own addresses, as edges.
    fn own<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        let partition = &self.0.partition;
        edges(py, partition.family, &partition.own.edges(std::iter::once(self.0.own)))
    }

    /// Those of the other side.
    fn peers<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        let partition = &self.0.partition;
        edges(py, partition.family, &partition.peers.edges(std::iter::once(self.0.peer)))
    }
}

fn direction(egress: bool) -> Direction {
    if egress { Direction::Egress } else { Direction::Ingress }
}

fn tuples(py: Python<'_>, changes: Vec<compare::Change>) -> PyResult<Vec<ChangeTuple<'_>>> {
    // Of a class, of which there are those of a partition for each family: many changes have it.
    let mut pieces = FxHashMap::<(usize, usize), Vec<Bound<'_, PyTuple>>>::default();
    let mut tuple = |change: compare::Change| {
        let family = change.cell.partition.family;
        let mut services = Vec::new();
        for &class in &change.services {
            let of_class = pieces.entry((family as usize, class));
            services.extend_from_slice(match of_class {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => new.insert(piece_tuples(py, &change.cell.partition, class)?),
            });
        }
        Ok((
            if family == Family::V4 { 4 } else { 6 },
            change.members.to_vec(),
            (change.verdicts[0], change.verdicts[1]),
            change.own.as_deref().map(|own| edges(py, family, own)),
            edges(py, family, &change.peers),
            PyTuple::new(py, services)?,
            Cell(change.cell),
        ))
    };
    changes.into_iter().map(&mut tuple).collect()
}

/// (protocols, whether opaque, source ports, destination ports) of each piece of a class.
fn piece_tuples<'py>(
    py: Python<'py>,
    partition: &compare::Partition,
    class: usize,
) -> PyResult<Vec<Bound<'py, PyTuple>>> {
    let pieces = partition.services.pieces[class].iter();
    let tuple = |piece: &compare::Piece| {
        let protocols = PyBytes::new(py, &piece.protocols);
        (protocols, piece.is_opaque, piece.source_ports, piece.destination_ports).into_pyobject(py)
    };
    pieces.map(tuple).collect()
}

/// As numpy has them: uint64 for IPv4, 16 bytes in network order for IPv6.
#[allow(clippy::cast_possible_truncation)] // IPv4 numbers are below 2^32 by construction.
fn edges<'py>(py: Python<'py>, family: Family, edges: &[u128]) -> Bound<'py, PyBytes> {
    let bytes: Vec<u8> = match family {
        Family::V4 => edges.iter().flat_map(|&edge| (edge as u64).to_ne_bytes()).collect(),
        Family::V6 => edges.iter().flat_map(|&edge| edge.to_be_bytes()).collect(),
    };
    PyBytes::new(py, &bytes)
}
