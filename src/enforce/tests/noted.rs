//! Measurements switch off what is noted of packets; how they are answered stays.

use super::super::Noted;
use super::{CONFIG, Rates, Running, drop_it, single, udp};
use crate::enforce::EnforcerConfig;
use crate::flow::Hook;

#[test]
fn each_step_notes_what_those_before_it_do_and_one_thing_more() {
    let hook = Hook::FilterInput;
    let config = EnforcerConfig { event_rates: Rates { rule: 9, policy: 9 }, recorded: 9, ..CONFIG };
    let running = Running::start(&config, &[hook], &[]);
    let noted = || {
        let shared = &running.shared;
        let hits: u64 =
            shared.hits().iter().flat_map(|table| &table.tallies).map(|(_, tally)| tally.packets).sum();
        let events = shared.events.as_ref().unwrap().take(9).len();
        (hits, events, shared.recorded().len())
    };
    let expected = [(0, 0, 0), (1, 0, 0), (2, 1, 0), (3, 1, 1)];
    for (step, expected) in Noted::ALL.into_iter().zip(expected) {
        running.shared.noted.set(step);
        assert_eq!(running.ask(0, (0, 0), &udp(1)), single(hook, drop_it()));
        assert_eq!(noted(), expected, "{}", step.name());
    }
    assert_eq!(running.counters().hooks[hook.name()].verdicts["deny"], 4, "hooks count in any case");
    assert!(Noted::ALL.into_iter().all(|step| Noted::from_name(step.name()) == Some(step)));
    assert_eq!(Noted::from_name("all"), None);
}

#[test]
fn at_the_start_everything_is_noted() {
    assert_eq!(super::super::noted::Switch::default().get(), Noted::Recorded);
}
