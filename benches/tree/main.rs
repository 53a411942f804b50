//! The boundary tree on five-tuple rule sets, beside DPDK's `rte_acl` on the same rules and packets.
//!
//! ```text
//! cargo bench --bench tree -- [--sets acl,fw,ipc] [--sizes 1000,10000,100000] [--rules FILE]... [--packets N]
//!                             [--rounds N] [--seed N] [--peer PROGRAM]
//! ```
//!
//! Per set: medians over the rounds of the time per packet, one at a time, each waiting for the last answer, and in
//! batches of 64; the peer takes its turn in every round. All answers are checked against a linear scan. `--rules`
//! reads filters in ClassBench's format; `--peer` is `benches/peers/rte_acl` (`make -C benches/peers`).

#![expect(clippy::cast_precision_loss, reason = "times and counts for people")]

mod peer;
mod sets;

use std::hint::black_box;

use cpu_time::ThreadTime;
use labelgate::table::tree::{self, DIMENSIONS, Limits, Tree};
use labelgate::workload::five_tuples::trace;
use peer::Peer;
use sets::{Options, Set};

type Point = [u32; DIMENSIONS];

/// Packets that are timed together: so few that the caches mostly stay as they were left, whatever else runs here.
const SLICE: usize = 512;

fn main() {
    let options = Options::from_arguments();
    println!(
        "{:<12} {:>7} {:>8} {:>8} {:>6} {:>18} | {:>7} {:>9} {:>7} | {:>9} {:>8} {:>7} {:>7} | {:>6} {:>6}",
        "set",
        "rules",
        "build ms",
        "KB",
        "B/rule",
        "trees nodes depth",
        "one ns",
        "dependent",
        "batch",
        "peer s",
        "peer KB",
        "one ns",
        "batch",
        "x one",
        "x batch"
    );
    let mut ratios = Vec::new();
    for set in options.sets() {
        if let Some(ratio) = measure(&set, &options) {
            ratios.push(ratio);
        }
    }
    if !ratios.is_empty() {
        let mean = |pick: fn(&(f64, f64)) -> f64| {
            (ratios.iter().map(|ratio| pick(ratio).ln()).sum::<f64>() / ratios.len() as f64).exp()
        };
        println!("geometric means of the ratios: {:.2} {:.2}", mean(|ratio| ratio.0), mean(|ratio| ratio.1));
    }
}

/// Prints the row of one set; the peer's times over ours, if there is a peer.
fn measure(set: &Set, options: &Options) -> Option<(f64, f64)> {
    let packets = trace(&set.rules, options.packets, options.seed + 1);
    let expected = sets::linear(&set.rules, &packets);
    let cuboids = set.cuboids();
    let limits = Limits::of(cuboids.len());
    let (tree, build) = build(&cuboids, &limits);
    let mut peer =
        options.peer.as_deref().and_then(|program| Peer::start(program, &set.rules, &packets, &expected));
    let mut values = vec![0; packets.len()];
    let mut times: [Vec<f64>; 5] = Default::default();
    for _ in 0..options.rounds {
        // The peer gives the time of its best method, whose table is in the caches by then; so is ours after a pass.
        one(&tree, &packets, &mut values);
        times[0].push(time(&packets, &mut values, |packets, values| one(&tree, packets, values)));
        check(&values, &expected, set);
        times[1].push(time(&packets, &mut values, |packets, values| dependent(&tree, packets, values)));
        check(&values, &expected, set);
        times[2].push(time(&packets, &mut values, |packets, values| batch(&tree, packets, values)));
        check(&values, &expected, set);
        if let Some((one, batch)) = peer.as_mut().and_then(Peer::round) {
            times[3].push(one);
            times[4].push(batch);
        }
    }
    let [one, dependent, batch, peer_one, peer_batch] = times.map(median);
    let shape = tree.shape();
    print!(
        "{:<12} {:>7} {:>8.1} {:>8} {:>6} {:>5} {:>7} {:>4} | {one:>7.1} {dependent:>9.1} {batch:>7.1}",
        set.name,
        set.rules.len(),
        build * 1e3,
        tree.bytes() / 1024,
        tree.bytes() / set.rules.len(),
        shape.trees,
        shape.nodes,
        shape.depth,
    );
    let Some(peer) = peer else {
        println!();
        return None;
    };
    let ratios = (peer_one / one, peer_batch / batch);
    println!(
        " | {:>9.2} {:>8.0} {peer_one:>7.1} {peer_batch:>7.1} | {:>6.2} {:>6.2}",
        peer.build_seconds, peer.kilobytes, ratios.0, ratios.1
    );
    Some(ratios)
}

fn build(cuboids: &[tree::Cuboid], limits: &Limits) -> (Tree, f64) {
    let mut times = Vec::new();
    let mut built = None;
    for _ in 0..5 {
        let start = ThreadTime::now();
        built = Some(tree::build(black_box(cuboids), limits).expect("the budget of a list fits it"));
        times.push(start.elapsed().as_secs_f64());
    }
    (built.expect("built five times"), median(times))
}

/// Nanoseconds of this thread a packet: the median over slices of the trace, so that what else runs here does not count.
fn time(packets: &[Point], values: &mut [u32], pass: impl Fn(&[Point], &mut [u32])) -> f64 {
    values.fill(0);
    let mut times = Vec::with_capacity(packets.len() / SLICE);
    for (packets, values) in packets.chunks_exact(SLICE).zip(values.chunks_exact_mut(SLICE)) {
        let start = ThreadTime::now();
        pass(black_box(packets), black_box(values));
        times.push(start.elapsed().as_secs_f64() * 1e9 / SLICE as f64);
    }
    median(times)
}

fn one(tree: &Tree, packets: &[Point], values: &mut [u32]) {
    for (value, packet) in values.iter_mut().zip(packets) {
        *value = tree.find(packet);
    }
}

fn dependent(tree: &Tree, packets: &[Point], values: &mut [u32]) {
    let nothing = black_box(0);
    let mut last = 0;
    for (value, packet) in values.iter_mut().zip(packets) {
        let mut packet = *packet;
        packet[0] ^= last & nothing;
        last = tree.find(&packet);
        *value = last;
    }
}

fn batch(tree: &Tree, packets: &[Point], values: &mut [u32]) {
    for (values, packets) in values.chunks_mut(64).zip(packets.chunks(64)) {
        tree.find_batch(packets, values);
    }
}

fn check(values: &[u32], expected: &[u32], set: &Set) {
    let wrong = values.iter().zip(expected).filter(|(value, expected)| value != expected).count();
    assert_eq!(wrong, 0, "{}: answers that differ from the linear scan's", set.name);
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
