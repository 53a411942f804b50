use std::collections::BTreeMap;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::super::ranges::tests::{asked, intervals, no_limit, searched};
use super::*;

type Map = Vec<(u128, u32)>;

/// One at a time and in blocks, at every bound, beside it, and at the ends.
fn check(v6: &V6, image: &mut Builder, intervals: &[(u128, u32)]) {
    let image = image.image().expect("memory");
    let addresses = asked(intervals, u128::MAX);
    for addresses in addresses.chunks(16) {
        let block: [u128; 16] = std::array::from_fn(|index| addresses[index % addresses.len()]);
        for (&address, class) in
            block.iter().zip(v6.classes(&image, &block.map(u128::to_be_bytes).each_ref()))
        {
            let expected = searched(intervals, address);
            assert_eq!((v6.class(&image, address), class), (expected, expected), "{address:x}");
        }
    }
}

fn check_built(intervals: &[(u128, u32)]) -> usize {
    let mut image = no_limit();
    let v6 = V6::build(&mut image, intervals).expect("no limit");
    check(&v6, &mut image, intervals);
    image.bytes()
}

/// In few upper halves, at their ends, and in few blocks of 256: many are neighbours.
fn address() -> impl Strategy<Value = u128> {
    let upper = prop_oneof![
        0..3_u64,
        u64::MAX - 2..=u64::MAX,
        (0..40_u64).prop_map(|n| 0xfd6c << 48 | n),
        any::<u64>()
    ];
    let lower = prop_oneof![
        4 => 0..300_u64,
        1 => u64::MAX - 300..=u64::MAX,
        1 => (0..6_u64, 250..260_u64).prop_map(|(place, low)| place << 40 | low),
        1 => (0..64_u32).prop_map(|bit| 1 << bit),
        1 => any::<u64>(),
    ];
    (upper, lower).prop_map(|(upper, lower)| u128::from(upper) << 64 | u128::from(lower))
}

/// A net of any length, or an address beside one.
fn net() -> impl Strategy<Value = (u128, u128)> {
    (address(), 0..=128_u32, any::<bool>()).prop_map(|(address, length, is_single)| {
        let below = u128::MAX.checked_shr(if is_single { 128 } else { length }).unwrap_or(0);
        (address & !below, address | below)
    })
}

/// Each net with a class in turn.
fn overlaid(nets: &[((u128, u128), u32)]) -> Map {
    nets.iter().fold(vec![(0, 7)], |map, &((first, last), class)| given(&map, first, last, class))
}

/// With another class from one address to another.
fn given(map: &[(u128, u32)], first: u128, last: u128, class: u32) -> Map {
    let behind = last.checked_add(1).map(|behind| (behind, searched(map, behind)));
    let before = map.iter().copied().filter(|&(at, _)| at < first);
    let after = map.iter().copied().filter(|&(at, _)| behind.is_some_and(|(behind, _)| at > behind));
    let mut all: Map = before.chain([(first, class)]).chain(behind).chain(after).collect();
    all.dedup_by_key(|&mut (_, class)| class);
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn every_interval_is_found(bounds in btree_map(address(), 0..4_u32, 0..120)) {
        check_built(&intervals(bounds));
    }

    #[test]
    fn nets_of_every_length_are_found(nets in vec((net(), 0..5_u32), 0..60)) {
        check_built(&overlaid(&nets));
    }

    /// What is changed in place says what is built anew.
    #[test]
    fn tables_are_brought_up_to_date(
        nets in vec((net(), 0..4_u32), 0..60),
        edits in vec(vec((net(), 0..6_u32), 1..4), 1..12),
    ) {
        let mut map = overlaid(&nets);
        let mut image = no_limit();
        let mut v6 = V6::build(&mut image, &map).expect("no limit");
        for edit in edits {
            let moved: Vec<_> = edit.into_iter().map(|((first, last), class)| (first, last, class)).collect();
            for &(first, last, class) in &moved {
                map = given(&map, first, last, class);
            }
            if !v6.renew(&mut image, &map, &moved).expect("no limit") {
                v6 = V6::build(&mut image, &map).expect("no limit");
            }
            check(&v6, &mut image, &map);
        }
    }
}

/// So many bounds that the trees have several levels.
#[test]
fn trees_of_many_bounds() {
    for count in [7, 8, 9, 63, 64, 65, 511, 512, 513, 5000] {
        for shift in [90, 64, 40, 9, 1] {
            check_built(&intervals((1..=count).map(|number| (u128::from(number) << shift, number % 3))));
        }
    }
}

/// Hosts of one network by random numbers, and by numbers in a row.
#[test]
fn hosts_of_one_network() {
    for step in [1, 3, 0x9e37_79b9_7f4a_7c15_u64] {
        let mut bounds = BTreeMap::new();
        for host in 1..=3000_u32 {
            let at = 0xfd_u128 << 120 | u128::from(u64::from(host).wrapping_mul(step));
            bounds.insert(at, 1 + host % 3);
            bounds.entry(at + 1).or_insert(7);
        }
        let bytes = check_built(&intervals(bounds));
        assert!(bytes < 3000 * 100, "{step}: {bytes}");
    }
}

#[test]
fn the_smallest_address_is_found_beside_empty_places() {
    let mut image = no_limit();
    let mut v6 = V6::build(&mut image, &[(0, 7)]).expect("no limit");
    let map = [(0, 3), (1, 7)];
    assert!(v6.renew(&mut image, &map, &[(0, 0, 3)]).expect("no limit"));
    check(&v6, &mut image, &map);
}

/// Far more keys with one place than may lie near it: upper halves, and blocks of one of them.
#[test]
fn keys_with_one_place_go_to_the_tree() {
    // The other way round: whose product begins like this.
    let inverse = 0xf1de_83e1_9937_733d_u64;
    let keys = (0..).map(|low| inverse.wrapping_mul(0x99 << 44 | low)).filter(|&key| key < 1 << 56);
    let mut same: Vec<u64> = keys.take(300).collect();
    same.sort_unstable();
    assert!(same.iter().all(|&key| search::hash(key) >> 44 == 0x99));
    let wide = |key: u64| u128::from(key);
    for address in [|key: u128| key << 64 | 5, |key: u128| 0xfd_u128 << 120 | key << 8 | 5] {
        let bounds = same.iter().flat_map(|&key| [(address(wide(key)), 1), (address(wide(key)) + 1, 7)]);
        let map = intervals(bounds);
        check_built(&map);
        // The first ones fit, the others want tables built anew.
        let (mut image, mut grown) = (no_limit(), vec![(0, 7)]);
        let mut v6 = V6::build(&mut image, &grown).expect("no limit");
        for &key in same.iter().take(30) {
            let at = address(wide(key));
            grown = given(&grown, at, at, 1);
            if !v6.renew(&mut image, &grown, &[(at, at, 1)]).expect("no limit") {
                v6 = V6::build(&mut image, &grown).expect("no limit");
            }
            check(&v6, &mut image, &grown);
        }
    }
}

/// Whatever is written, a bound takes no more than so much.
#[test]
fn memory_is_in_proportion_to_bounds() {
    let count = 2000_u32;
    let shapes: [fn(u128) -> u128; 5] = [
        |number| number << 65,
        |number| number << 64 | 1 << (number % 64),
        |number| (number / 2) << 64 | (1 + number % 2 * 3000),
        |number| number << 16,
        |number| (number * number) << 30,
    ];
    for (shape, address) in shapes.iter().enumerate() {
        let bounds: BTreeMap<_, _> =
            (1..=count).map(|number| (address(number.into()), number % 60_000)).collect();
        let map = intervals(bounds);
        let bytes = check_built(&map);
        assert!(bytes < 400 * map.len() + 4000, "{shape}: {bytes} bytes of {} bounds", map.len());
    }
}

/// A net over hosts that differ from each other moves every one of them, and what lies between.
#[test]
fn each_block_is_written_once_by_an_edit() {
    let host = |number: u32| 0xfd_u128 << 120 | u128::from(2 * number);
    let bounds =
        |more| (0..10_000).flat_map(move |number| [(host(number), number + more), (host(number) + 1, 6)]);
    let map = intervals(bounds(10));
    let mut image = no_limit();
    let mut v6 = V6::build(&mut image, &map).expect("no limit");
    let fresh = image.bytes();
    let moved: Vec<_> =
        bounds(20_000).map(|(at, class)| (at, at, if class == 6 { 5 } else { class })).collect();
    let mut edited = intervals(moved.iter().map(|&(first, _, class)| (first, class)));
    edited.push((host(10_000), 6));
    assert!(v6.renew(&mut image, &edited, &moved).expect("no limit"));
    check(&v6, &mut image, &edited);
    assert!(image.bytes() < 3 * fresh, "{} bytes more than {fresh}", image.bytes() - fresh);
}

#[test]
fn what_does_not_fit_is_refused() {
    let bounds = intervals((1..100_u32).map(|number| (u128::from(number) << 9, number % 2)));
    let mut whole = no_limit();
    let v6 = V6::build(&mut whole, &bounds).expect("no limit");
    for most in (0..whole.bytes()).step_by(64) {
        let mut image = Builder::new(most);
        let built = V6::build(&mut image, &bounds);
        assert!(matches!(built, Err(Refused::Bytes { most: of, .. }) if of == most), "{most}");
    }
    check(&v6, &mut whole, &bounds);
}

/// Addresses that no policy knows are found with one look, and so are those that come to be known among them; one that has no
/// place where it is looked for first takes its side of the interval along.
#[test]
fn strangers_are_found_at_once() {
    let pod = 0xfd6c_u128 << 112 | 5;
    let mut map = given(&[(0, 7)], pod, pod, 1);
    let mut image = no_limit();
    let mut v6 = V6::build(&mut image, &map).expect("no limit");
    let near = |v6: &V6, image: &mut Builder, address| v6.near(&image.image().expect("memory"), address);
    let [first, last] = [0x2000 << 112 | 1, 0x3fff << 112 | 1];
    assert_eq!([first, last].map(|address| near(&v6, &mut image, address)), [Some(7); 2]);
    let (mut known, mut elsewhere) = (0, 0);
    for upper in 0x2a01..0x2a40_u128 {
        let address = upper << 112 | 1;
        map = given(&map, address, address, 3);
        if !v6.renew(&mut image, &map, &[(address, address, 3)]).expect("no limit") {
            break;
        }
        check(&v6, &mut image, &map);
        match near(&v6, &mut image, address) {
            Some(class) => {
                assert_eq!(class, 3);
                known += 1;
            }
            None => elsewhere += 1,
        }
        assert_eq!(near(&v6, &mut image, last), Some(7), "on the longer side");
    }
    assert!(known > 0 && elsewhere > 0, "{known} and {elsewhere} in {} buckets", v6.upper.bucket_count);
}
