//! Capture files to flows: every packet is in a flow or in a counter, however much is remembered and read at once.

use std::io::Cursor;

use labelgate::capture::{Capture, Counters, Flow};

/// The bytes are a file.
pub fn check(bytes: &[u8]) {
    let Some(all) = read(bytes, 1 << 10, 1 << 10) else { return };
    assert_eq!(read(bytes, 1 << 10, 1), Some(all.clone()), "in steps of one flow");
    let (flows, counters, _) = all;
    accounted(&flows, &counters);
    let (few, few_counters, _) = read(bytes, 2, 1 << 10).expect("it could be opened");
    accounted(&few, &few_counters);
    let without_table = |counters| Counters { evicted: 0, ..counters };
    assert_eq!(without_table(few_counters), without_table(counters));
}

type Read = (Vec<Flow>, Counters, Option<String>);

/// Flows, counters and how it ends; none if it is no capture.
fn read(bytes: &[u8], most: usize, step: usize) -> Option<Read> {
    let mut capture =
        Capture::open(Cursor::new(bytes.to_vec()), most, bytes.len() % 2 == 0, Vec::new()).ok()?;
    let mut flows = Vec::new();
    let ended = loop {
        match capture.read(step, &mut flows) {
            Ok(true) => {}
            Ok(false) => break None,
            Err(error) => break Some(error.to_string()),
        }
    };
    Some((flows, capture.counters(), ended))
}

fn accounted(flows: &[Flow], counters: &Counters) {
    if flows.is_empty() {
        return;
    }
    let in_flows: u64 = flows.iter().map(|flow| flow.packets[0] + flow.packets[1]).sum();
    let others = counters.not_ip + counters.fragments + counters.cut_link;
    assert_eq!(in_flows + others + counters.malformed.iter().sum::<u64>(), counters.packets);
    assert!(flows.iter().all(|flow| flow.first <= flow.last));
}
