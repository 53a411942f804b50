//! Named workloads: the same for the same seed, with known answers, each of which all policies in order give too.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use labelgate::compile::compile;
use labelgate::flow::{Direction, Family, FiveTuple, Transport, address_number, number_address, protocol};
use labelgate::table::{Budgets, DecisionTable, Engines};
use labelgate::workload::labels::{Cluster, NaiveCluster, Size};
use labelgate::workload::measure::{Bench, MeasureError, questions};
use labelgate::workload::traffic::Scope;
use labelgate::workload::{NAMED, Naive, Named, Traffic, Workload};

const SEED: u64 = 1;
const QUESTIONS: usize = 2_000;

fn workload(name: &str, seed: u64) -> Workload {
    Named::find(name).unwrap_or_else(|| panic!("no workload `{name}`")).workload(seed)
}

const INGRESS: &[Direction] = &[Direction::Ingress];
const TINY: Size = Size { endpoints: 120, policies: 30, namespaces: 3, apps: 4 };

/// A node with all the pods of a tiny cluster.
fn tiny() -> Workload {
    let cluster = Cluster::generate(TINY, SEED);
    let naive = Box::new(NaiveCluster::new(&cluster, Family::V4, INGRESS));
    Workload { model: cluster.model(Family::V4), naive: Some(naive), ..workload("labels-1k-node", SEED) }
}

/// FNV-1a of the program's text: what a workload is, in one number.
fn hash(workload: &Workload) -> String {
    let program = compile(&workload.model, workload.node.as_deref()).expect("a model that compiles");
    let text = program.to_string();
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

/// Name, program, verdicts of every small workload. A change here changes what was published under the name.
const KNOWN: &str = "
labels-1k-node d6207ef5984125d5 allow 998 deny 1002
labels-1k-cluster 1e444e164d2d816b allow 1054 deny 946
labels-1k-node-v6 cecff602f14313cc allow 998 deny 1002
labels-1k-cluster-v6 a3de604b9dccd1cc allow 1054 deny 946
labels-1k-egress d6207ef5984125d5 allow 1616 deny 384
labels-1k-between d6207ef5984125d5 allow 395 deny 1605
labels-1k-between-v6 cecff602f14313cc allow 395 deny 1605
acl-1k f9f6895926759622 allow 977 deny 1023
fw-1k 8e696d1be10611ef allow 967 deny 1033
ipc-1k 5c930e4e4f92bc52 allow 969 deny 1031
";

#[test]
fn small_workloads_are_known() {
    let mut found = vec![String::new()];
    for name in NAMED.iter().map(|named| named.name).filter(|name| name.contains("-1k")) {
        let workload = workload(name, SEED);
        let program = hash(&workload);
        let mut bench = Bench::new(workload, SEED, QUESTIONS).expect("a workload that compiles");
        let checked = bench.check(&AtomicBool::new(false)).expect("not stopped");
        assert_eq!((checked.mismatches, checked.first), (0, None), "{name}");
        assert_eq!((checked.questions, checked.linear), (2 * QUESTIONS, QUESTIONS), "{name}");
        let verdicts: Vec<_> =
            checked.verdicts.iter().map(|(name, count)| format!("{name} {count}")).collect();
        found.push(format!("{name} {program} {}", verdicts.join(" ")));
    }
    assert_eq!(found, KNOWN.lines().collect::<Vec<_>>());
}

#[test]
fn another_seed_is_another_workload() {
    assert_ne!(hash(&workload("labels-1k-node", 1)), hash(&workload("labels-1k-node", 2)));
}

/// A table and policies that do not belong together disagree.
#[test]
fn wrong_answers_are_mismatches() {
    let other = Box::new(NaiveCluster::new(&Cluster::generate(TINY, 2), Family::V4, INGRESS));
    let mut bench =
        Bench::new(Workload { naive: Some(other), ..tiny() }, SEED, 500).expect("a workload that compiles");
    let checked = bench.check(&AtomicBool::new(false)).expect("not stopped");
    assert!(checked.mismatches > 100, "{checked:?}");
    assert!(checked.first.expect("the first of them").contains("all policies in order say"));
}

/// Between two pods the policies of both count, in this order: whoever asks one side alone is often wrong.
#[test]
fn packets_between_pods_meet_the_policies_of_both() {
    const GATES: [&[Direction]; 3] =
        [INGRESS, &[Direction::Egress], &[Direction::Ingress, Direction::Egress]];
    let cluster = Cluster::generate(TINY, SEED);
    for gates in GATES {
        let naive = Box::new(NaiveCluster::new(&cluster, Family::V4, gates));
        let traffic = Traffic::Aimed { scope: Scope::Between, aimed: 50 };
        let mut bench =
            Bench::new(Workload { naive: Some(naive), traffic, ..tiny() }, SEED, 1000).expect("a workload");
        let checked = bench.check(&AtomicBool::new(false)).expect("not stopped");
        assert!(checked.mismatches > 100, "{gates:?}: {checked:?}");
    }
}

/// Each of them is on the way from one pod to another.
#[test]
fn packets_between_pods_pass_the_interfaces_of_both() {
    let workload = workload("labels-1k-between", SEED);
    let program = compile(&workload.model, workload.node.as_deref()).expect("a model that compiles");
    let engines = Engines::build(Arc::new(program), &Budgets::LINEAR);
    let table = DecisionTable::new(Arc::new(engines), &workload.host);
    let of_address: BTreeMap<_, _> =
        workload.model.workloads.iter().map(|pod| (pod.networks[0].clone(), pod)).collect();
    let interface = |address| {
        let pod = of_address[&number_address(Family::V4, address).to_string()];
        table.interface(&pod.interface)
    };
    let mut pairs = BTreeSet::new();
    for questions in questions(&workload, &table, SEED, QUESTIONS).expect("questions") {
        for key in (0..questions.len()).map(|index| questions.flows().key(index)) {
            let FiveTuple { source, destination, .. } = key.tuple;
            assert_eq!((key.input, key.output), (interface(source), interface(destination)));
            assert_ne!(source, destination);
            pairs.insert((source, destination));
        }
    }
    assert!(pairs.len() > QUESTIONS / 2, "{} pairs", pairs.len());
}

/// The IPv6 twin answers what the IPv4 workload answers.
#[test]
fn twins_answer_alike() {
    let cluster = Cluster::generate(TINY, SEED);
    let [v4, v6] = [Family::V4, Family::V6].map(|family| NaiveCluster::new(&cluster, family, INGRESS));
    let models = [Family::V4, Family::V6].map(|family| cluster.model(family));
    let address = |family: Family, index: usize| {
        let text = &models[family as usize].workloads[index].networks[0];
        address_number(text.parse().expect("an address")).1
    };
    let mut allowed = 0;
    for (source, destination) in (0..20).flat_map(|source| (20..40).map(move |to| (source, to))) {
        for (number, number_v6, port) in [
            (protocol::TCP, protocol::TCP, 80),
            (protocol::UDP, protocol::UDP, 53),
            (protocol::ICMP, protocol::ICMPV6, 8 << 8),
        ] {
            let tuple = |family, protocol| FiveTuple {
                family,
                source: address(family, source),
                destination: address(family, destination),
                protocol,
                transport: Transport::of(protocol, 40_000, port),
            };
            let answer = v4.judge(&tuple(Family::V4, number));
            assert_eq!(answer, v6.judge(&tuple(Family::V6, number_v6)));
            allowed += usize::from(answer.expect("a pod").allows);
        }
    }
    assert!((100..1100).contains(&allowed), "{allowed}");
}

/// Questions that are aimed at rules are decided by one more often than others.
#[test]
fn questions_hit_what_they_are_aimed_at() {
    let allowed = |aimed| {
        let mut bench = Bench::new(
            Workload { traffic: Traffic::Aimed { scope: Scope::Ingress, aimed }, ..tiny() },
            SEED,
            1000,
        )
        .expect("a workload that compiles");
        bench.check(&AtomicBool::new(false)).expect("not stopped").verdicts["allow"]
    };
    assert!(allowed(100) > allowed(0) + 250);
}

#[test]
fn a_stop_is_heard() {
    let mut bench = Bench::new(tiny(), SEED, QUESTIONS).expect("a workload that compiles");
    let stop = AtomicBool::new(true);
    assert!(matches!(bench.check(&stop), Err(MeasureError::Stopped)));
    assert!(matches!(bench.round(&stop), Err(MeasureError::Stopped)));
}

#[test]
fn a_node_without_endpoints_has_nothing_to_ask() {
    let nowhere = Workload { node: Some("nowhere".to_owned()), ..tiny() };
    assert!(matches!(Bench::new(nowhere, SEED, 10), Err(MeasureError::NoEndpoint)));
}
