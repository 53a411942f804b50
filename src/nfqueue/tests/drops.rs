//! What is dropped has no order, and what passes has one.

use proptest::prelude::*;

use super::fake_kernel::Waiting;
use super::{ACCEPT, Anomalies, BATCH, marked, packet, plain, queue_of, step};

/// Stand for replies, as the judge of these tests has it.
const DROP: u32 = 0;
const PASS: u32 = 1;
const OTHER: u32 = 0x600;

/// What is sent for packets from id 1 on.
fn sent(marks: &[u32]) -> Vec<u8> {
    let batch = (1..).zip(marks).map(|(id, &mark)| packet(id, mark)).collect();
    let mut queue = queue_of(vec![Some(batch)]);
    assert_eq!(step(&mut queue), Anomalies::default());
    queue.channel().sent.concat()
}

#[test]
fn single_drops_among_what_passes_are_sent_ahead() {
    let expected = [plain(1, 0, 2), plain(1, 0, 4), plain(3, 1, 5)];
    assert_eq!(sent(&[PASS, DROP, PASS, DROP, PASS]), expected.concat());
    // at the ends nothing is gained
    let expected = [plain(1, 0, 1), plain(1, 0, 3), plain(3, 1, 4), plain(1, 0, 5)];
    assert_eq!(sent(&[DROP, PASS, DROP, PASS, DROP]), expected.concat());
}

#[test]
fn drops_that_part_nothing_stay_where_they_are() {
    // between runs that differ, and two in a row: one message either way
    let expected = [plain(1, 1, 1), plain(1, 0, 2), marked(1, 4, 3, OTHER)];
    assert_eq!(sent(&[PASS, DROP, OTHER]), expected.concat());
    let expected = [plain(1, 1, 1), plain(3, 0, 3), plain(1, 1, 4)];
    assert_eq!(sent(&[PASS, DROP, DROP, PASS]), expected.concat());
    // what passes is never sent ahead
    let expected = [plain(3, 0, 2), plain(1, 1, 3), plain(3, 0, 5)];
    assert_eq!(sent(&[DROP, DROP, PASS, DROP, DROP]), expected.concat());
}

/// The batch verdict for 5 must not be what answers 2, nor be sent before 2 has been dropped.
#[test]
fn no_run_goes_on_behind_a_packet_without_an_id() {
    let mut cut = packet(2, PASS);
    cut.truncate(20);
    let rest = [DROP, PASS].into_iter().zip(4..).map(|(mark, id)| packet(id, mark));
    let batch = [packet(1, PASS), cut, packet(3, PASS)].into_iter().chain(rest).collect();
    let mut queue = queue_of(vec![Some(batch)]);
    step(&mut queue);
    let expected = [plain(1, 1, 1), plain(3, 0, 2), plain(1, 0, 4), plain(3, 1, 5)];
    assert_eq!(queue.channel().sent, [expected.concat()]);
}

/// Steps from one id to the next, and marks.
fn batches() -> impl Strategy<Value = Vec<(u32, u32)>> {
    let (drops, passes) = (Just(DROP), Just(PASS));
    let mark = prop_oneof![4 => drops, 4 => passes, 1 => Just(0x500), 1 => Just(OTHER)];
    prop::collection::vec((1..4_u32, mark), 1..=BATCH)
}

/// Messages where runs of equal replies are one each, whatever they say.
fn runs(marks: impl Iterator<Item = u32>) -> usize {
    let mut marks: Vec<_> = marks.collect();
    marks.dedup();
    marks.len()
}

proptest! {
    #[test]
    fn every_packet_has_its_reply_in_the_fewest_messages(first: u32, packets in batches()) {
        let ids = packets.iter().scan(first, |id, (step, _)| {
            *id = id.wrapping_add(*step);
            Some(*id)
        });
        let asked: Vec<_> = ids.zip(packets.iter().map(|(_, mark)| *mark)).collect();
        let batch = asked.iter().map(|&(id, mark)| packet(id, mark)).collect();
        let mut queue = queue_of(vec![Some(batch)]);
        prop_assert_eq!(step(&mut queue), Anomalies::default());
        let mut kernel = Waiting { ids: asked.iter().map(|(id, _)| *id).collect(), ..Waiting::default() };
        kernel.take(&queue.channel().sent.concat());

        let wanted = |&(id, mark): &(u32, u32)| match mark {
            DROP => (id, 0, None),
            PASS => (id, ACCEPT.verdict as u8, ACCEPT.mark),
            mark => (id, 4, Some(mark)),
        };
        let passing = |replies: &[(u32, u8, Option<u32>)]| -> Vec<_> {
            replies.iter().copied().filter(|(_, verdict, _)| *verdict != 0).collect()
        };
        let wanted: Vec<_> = asked.iter().map(wanted).collect();
        prop_assert_eq!(passing(&kernel.answered), passing(&wanted), "in order");
        prop_assert_eq!(&kernel.ids, &[0; 0], "none waits any more");
        let by_id = |replies: &[(u32, u8, Option<u32>)]| {
            let mut replies = replies.to_vec();
            replies.sort_unstable();
            replies
        };
        prop_assert_eq!(by_id(&kernel.answered), by_id(&wanted));

        let marks = || asked.iter().map(|(_, mark)| *mark);
        let dropped = marks().filter(|mark| *mark == DROP).count();
        let all_ahead = dropped + runs(marks().filter(|mark| *mark != DROP));
        prop_assert!(kernel.messages <= runs(marks()).min(all_ahead), "{} messages", kernel.messages);
    }
}
