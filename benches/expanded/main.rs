//! Label policies beside DPDK's `rte_acl` on the same policies written out as five-tuple rules.
//!
//! ```text
//! cargo bench --bench expanded -- [--workloads labels-1k-node,...] [--most RULES] [--packets N] [--rounds N] [--seed N]
//!                                 [--peer PROGRAM]
//! ```
//!
//! Packets come in from the uplink for pods of the node, so that the ingress policy of one pod decides each. We are asked
//! at the hook (`DecisionTable::decide` and `decide_batch`, 256 at a time); the peer classifies with the rules of all pods,
//! each with the pod's address as destination. Pods are taken in order as long as their rules are at most so many. Half
//! of the packets are points of a rule of their pod, the others come from a pod of the cluster, every fifth of those from
//! any address, to a port of a rule. Medians over the rounds, in which both take turns; answers of both are checked
//! against a scan of the rules.

#![expect(clippy::cast_precision_loss, reason = "times for people")]

mod expand;
#[path = "../tree/peer.rs"]
mod peer;

use std::hint::black_box;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use expand::Expander;
use labelgate::compile::compile;
use labelgate::flow::{
    CtState, Family, FiveTuple, FlowKey, Hook, InterfaceId, OutcomeId, Transport, protocol,
};
use labelgate::program::{Attachment, Program};
use labelgate::table::{Addresses, Budgets, Column, DecisionTable, Engines, Flows};
use labelgate::workload::five_tuples::{FIELDS, Rule};
use labelgate::workload::{Named, Random, Workload};
use peer::Peer;

type Packet = [u32; FIELDS];

/// Packets that are timed together: so few that they are mostly over before the scheduler takes the processor away.
const SLICE: usize = 512;
/// Packets of a batch.
const BATCH: usize = 256;

struct Options {
    workloads: Vec<String>,
    most: usize,
    packets: usize,
    rounds: usize,
    seed: u64,
    peer: Option<PathBuf>,
}

impl Options {
    fn from_arguments() -> Self {
        let workloads = vec!["labels-1k-node".to_owned(), "labels-10k-node".to_owned()];
        let mut options =
            Self { workloads, most: 1_000_000, packets: 1 << 17, rounds: 9, seed: 1, peer: None };
        let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
        while let Some(name) = arguments.next() {
            let value = arguments.next().unwrap_or_else(|| panic!("{name} needs a value"));
            let number = || value.replace('_', "").parse().unwrap_or_else(|_| panic!("{name} {value}"));
            match name.as_str() {
                "--workloads" => options.workloads = value.split(',').map(str::to_owned).collect(),
                "--most" => options.most = number(),
                "--packets" => options.packets = number().next_multiple_of(SLICE),
                "--rounds" => options.rounds = number(),
                "--seed" => options.seed = number() as u64,
                "--peer" => options.peer = Some(value.into()),
                _ => panic!("{name} is no option"),
            }
        }
        options
    }
}

/// A pod of the node, and which of all rules are its own.
struct Pod {
    address: u32,
    interface: InterfaceId,
    rules: Range<usize>,
}

/// All that is asked, and the rule that decides.
struct Trace {
    packets: Vec<Packet>,
    keys: Vec<FlowKey>,
    expected: Vec<u32>,
}

fn main() {
    let options = Options::from_arguments();
    println!(
        "| workload | pods | rules | ours MB | rte_acl MB | rte_acl build s | one | batch | rte_acl one | rte_acl batch | \
         x one | x batch | answers |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|---|");
    for name in &options.workloads {
        measure(name, &options);
    }
}

fn measure(name: &str, options: &Options) {
    let workload = Named::find(name).expect("a workload of this name").workload(options.seed);
    let program = Arc::new(compile(&workload.model, workload.node.as_deref()).expect("a valid model"));
    let engines = Engines::build(Arc::clone(&program), &Budgets::default());
    let table = DecisionTable::new(Arc::new(engines), &workload.host);
    let mut expander = Expander::new(&program);
    let pods = pods(&program, &table, &mut expander, options.most);
    let (rules, outcomes): (Vec<Rule>, Vec<OutcomeId>) = expander.rules.into_iter().unzip();
    let trace = trace(&pods, &rules, &table, &workload, options);
    check(&table, &trace, &outcomes);
    let mut peer = options
        .peer
        .as_deref()
        .and_then(|program| Peer::start(program, &rules, &trace.packets, &trace.expected));
    let columns = Columns::of(&trace);
    let mut times: [Vec<f64>; 4] = Default::default();
    // Written once, so that no round waits for memory.
    let mut answers = (vec![u8::MAX; trace.keys.len()], vec![u32::MAX; trace.keys.len()]);
    let mut alone = answers.1.clone();
    for _ in 0..options.rounds {
        // The peer gives the time of its best method, whose table is in the caches by then; so are ours after a pass.
        one(&table, &trace, &mut alone);
        times[0].push(one(&table, &trace, &mut alone));
        answers.1.fill(u32::MAX);
        times[1].push(batch(&table, &columns, &mut answers));
        assert_eq!(alone, answers.1, "one at a time and in batches");
        if let Some((one, batch)) = peer.as_mut().and_then(Peer::round) {
            times[2].push(one);
            times[3].push(batch);
        }
    }
    let [one, batch, peer_one, peer_batch] = times.map(median);
    let (kilobytes, seconds) = peer.map_or((f64::NAN, f64::NAN), |peer| (peer.kilobytes, peer.build_seconds));
    println!(
        "| {name} | {} | {} | {:.2} | {:.1} | {seconds:.2} | {one:.1} | {batch:.1} | {peer_one:.1} | {peer_batch:.1} | \
         {:.1} | {:.1} | {} |",
        pods.len(),
        rules.len(),
        table.describe().bytes as f64 / 1e6,
        kilobytes * 1024.0 / 1e6,
        peer_one / one,
        peer_batch / batch,
        trace.keys.len(),
    );
}

/// Pods of the node with their rules, as far as those are few enough.
fn pods<'p>(
    program: &'p Program,
    table: &DecisionTable,
    expander: &mut Expander<'p>,
    most: usize,
) -> Vec<Pod> {
    let mut pods = Vec::new();
    for endpoint in program.endpoints.iter() {
        let (Attachment::Name(interface), Some(std::net::IpAddr::V4(address))) =
            (&endpoint.attachment, endpoint.addresses.first())
        else {
            continue;
        };
        let first = expander.rules.len();
        expander.to(program.chain(endpoint.normal.ingress), u32::from(*address));
        if expander.rules.len() > most {
            expander.rules.truncate(first);
            break;
        }
        pods.push(Pod {
            address: u32::from(*address),
            interface: table.interface(interface),
            rules: first..expander.rules.len(),
        });
    }
    pods
}

fn trace(
    pods: &[Pod],
    rules: &[Rule],
    table: &DecisionTable,
    workload: &Workload,
    options: &Options,
) -> Trace {
    let mut random = Random::new(options.seed + 1);
    let peers: Vec<u32> = workload.model.workloads.iter().filter_map(|pod| address(&pod.networks)).collect();
    let input = table.interface(&workload.uplink);
    let mut trace = Trace { packets: Vec::new(), keys: Vec::new(), expected: Vec::new() };
    while trace.packets.len() < options.packets {
        let pod = random.pick(pods);
        let own = &rules[pod.rules.clone()];
        let mut packet = packet(random.pick(own), &mut random);
        if random.one_in(2) {
            packet[0] = if random.one_in(5) { random.between(0, u32::MAX) } else { *random.pick(&peers) };
        }
        let Some(transport) = transport(&packet) else { continue };
        let place =
            own.iter().position(|rule| rule.contains(&packet)).expect("the last rule holds everything");
        trace.expected.push(u32::try_from(pod.rules.start + place).expect("few rules"));
        trace.packets.push(packet);
        trace.keys.push(FlowKey {
            tuple: FiveTuple {
                family: Family::V4,
                source: packet[0].into(),
                destination: pod.address.into(),
                protocol: u8::try_from(packet[4]).expect("at most 255"),
                transport,
            },
            hook: Hook::FilterForward,
            input,
            output: pod.interface,
            accepted: false,
            ct: CtState::New,
            dnatted: false,
        });
    }
    trace
}

/// A point of a rule; TCP or UDP where it leaves the protocol open.
fn packet(rule: &Rule, random: &mut Random) -> Packet {
    let mut packet = std::array::from_fn(|field| random.between(rule.low[field], rule.high[field]));
    if rule.low[4] != rule.high[4] {
        packet[4] = if random.one_in(2) { protocol::TCP } else { protocol::UDP }.into();
    }
    if packet[4] == u32::from(protocol::ICMP) {
        packet[2] = 0;
    }
    packet
}

/// None: a protocol whose packets have no keys, which a peer would have to be given one for.
fn transport(packet: &Packet) -> Option<Transport> {
    let port = |field: usize| u16::try_from(packet[field]).expect("at most 65535");
    match u8::try_from(packet[4]).expect("at most 255") {
        protocol::TCP | protocol::UDP | protocol::SCTP => {
            Some(Transport::Ports { source: port(2), destination: port(3) })
        }
        protocol::ICMP => {
            let [kind, code] = port(3).to_be_bytes();
            Some(Transport::Icmp { kind, code })
        }
        _ => None,
    }
}

fn address(networks: &[String]) -> Option<u32> {
    let text = networks.first()?.split('/').next()?;
    text.parse::<std::net::Ipv4Addr>().ok().map(u32::from)
}

/// Every answer is the meaning of the rule that decides.
fn check(table: &DecisionTable, trace: &Trace, outcomes: &[OutcomeId]) {
    for (key, &expected) in trace.keys.iter().zip(&trace.expected) {
        let found = table.meaning(table.decide(key).outcome).0;
        let expected = table.program().outcome(outcomes[expected as usize]);
        assert_eq!(found, expected, "{key:?}");
    }
}

/// Nanoseconds a packet: the median over slices, so that what else runs here does not count. A slice is laid out before
/// the clock starts: its packets are of five times as many bytes as the peer's, and nobody's table is read by that.
fn one(table: &DecisionTable, trace: &Trace, outcomes: &mut [u32]) -> f64 {
    let mut times = Vec::new();
    let mut laid_out = Vec::with_capacity(SLICE);
    for (keys, outcomes) in trace.keys.chunks_exact(SLICE).zip(outcomes.chunks_exact_mut(SLICE)) {
        laid_out.clear();
        laid_out.extend_from_slice(keys);
        let start = Instant::now();
        for (key, outcome) in black_box(&laid_out).iter().zip(outcomes) {
            *outcome = table.decide(key).outcome.number();
        }
        times.push(start.elapsed().as_secs_f64() * 1e9 / SLICE as f64);
    }
    median(times)
}

/// The trace by column.
struct Columns {
    source: Vec<u32>,
    destination: Vec<u32>,
    source_port: Vec<u16>,
    destination_port: Vec<u16>,
    protocol: Vec<u8>,
    output: Vec<u32>,
    input: u32,
}

impl Columns {
    fn of(trace: &Trace) -> Self {
        let ports = |field: usize| -> Vec<u16> {
            trace.packets.iter().map(|packet| u16::try_from(packet[field]).expect("at most 65535")).collect()
        };
        Self {
            source: trace.packets.iter().map(|packet| packet[0]).collect(),
            destination: trace.packets.iter().map(|packet| packet[1]).collect(),
            source_port: ports(2),
            destination_port: ports(3),
            protocol: trace.keys.iter().map(|key| key.tuple.protocol).collect(),
            output: trace.keys.iter().map(|key| key.output.0).collect(),
            input: trace.keys[0].input.0,
        }
    }

    fn flows(&self) -> Flows<'_> {
        let addresses = Addresses::V4 {
            source: Column::Each(&self.source),
            destination: Column::Each(&self.destination),
        };
        Flows {
            protocol: Column::Each(&self.protocol),
            source_port: Column::Each(&self.source_port),
            destination_port: Column::Each(&self.destination_port),
            input: Column::One(self.input),
            output: Column::Each(&self.output),
            ..Flows::new(Hook::FilterForward, addresses)
        }
    }
}

fn batch(table: &DecisionTable, columns: &Columns, (verdicts, outcomes): &mut (Vec<u8>, Vec<u32>)) -> f64 {
    let flows = columns.flows();
    let mut times = Vec::new();
    for first in (0..verdicts.len()).step_by(SLICE) {
        let start = Instant::now();
        for from in (first..first + SLICE).step_by(BATCH) {
            let rows = from..from + BATCH;
            let (verdicts, outcomes) = (&mut verdicts[rows.clone()], &mut outcomes[rows.clone()]);
            table.decide_batch(&flows.rows(&rows), verdicts, outcomes).expect("columns of one length");
        }
        times.push(start.elapsed().as_secs_f64() * 1e9 / SLICE as f64);
    }
    median(times)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
