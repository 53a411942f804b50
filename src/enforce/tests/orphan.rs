//! Packets of interfaces that are gone: denied, counted, and told within the rates.

use super::{CONFIG, Hook, PATIENCE, Rates, Running, udp};
use crate::enforce::EnforcerConfig;
use crate::flow::Verdict;

#[test]
fn packets_of_interfaces_that_are_gone_are_told() {
    let config = EnforcerConfig { event_rates: Rates { rule: 2, policy: 9 }, ..CONFIG };
    let running = Running::start(&config, &[Hook::FilterInput], &[]);
    for _ in 0..40 {
        running.ask(0, (u32::MAX, 0), &udp(1));
    }
    assert!(running.shared.drain(PATIENCE));
    assert_eq!(running.counters().hooks["filter-input"].unknown_interface, 40);
    let events = running.shared.events.as_ref().expect("they are told");
    let told = events.take(100);
    let event = told.first().expect("at least one is");
    assert!(event.is_orphan);
    assert_eq!((event.verdict, event.interfaces, event.generation), (Verdict::Deny, (u32::MAX, 0), 1));
    assert_eq!(event.header.bytes(), udp(1));
    // Two of each second in which they came.
    assert!(told.len() >= 2);
    assert_eq!(told.len() as u64 + events.untold().limited, 40);
}
