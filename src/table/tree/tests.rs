//! The tree against a plain linear scan.

use proptest::collection::vec;
use proptest::prelude::*;

use super::rules::DOMAIN;
use super::*;

fn linear(cuboids: &[Cuboid], point: &[u32; DIMENSIONS]) -> u32 {
    let contains =
        |c: &Cuboid| (0..DIMENSIONS).all(|d| c.low[d] <= point[d] && point[d] <= c.high[d].min(DOMAIN[d]));
    cuboids.iter().find(|cuboid| contains(cuboid)).map_or(NONE, |cuboid| cuboid.value)
}

/// Corners of cuboids, one step outside of them, and the ends of the domain.
fn edge_points(cuboids: &[Cuboid], seed: u64) -> Vec<[u32; DIMENSIONS]> {
    let mut state = seed | 1;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 16) as usize
    };
    let mut points = vec![[0; DIMENSIONS], DOMAIN];
    for _ in 0..400.min(cuboids.len() * 40).min(4_000_000 / cuboids.len().max(1)) {
        // Of one cuboid, or a corner of several.
        let (one, is_mixed) = (next(), next() % 2 == 0);
        let mut pick = || {
            let cuboid = &cuboids[if is_mixed { next() } else { one } % cuboids.len()];
            (cuboid.low, cuboid.high, next())
        };
        points.push(std::array::from_fn(|d| {
            let (low, high, choice) = pick();
            let value = match choice % 6 {
                0 => low[d],
                1 => high[d],
                2 => low[d].wrapping_sub(1),
                3 => high[d].wrapping_add(1),
                4 => low[d] + (high[d].wrapping_sub(low[d])) / 2,
                _ => DOMAIN[d],
            };
            value.min(DOMAIN[d])
        }));
    }
    points
}

/// With nets where all addresses are nets, however few.
const fn limits(bytes: usize, leaf: usize) -> Limits {
    Limits { bytes, leaf, nets: 0, services: usize::MAX }
}

/// With services, too.
const fn with_services(limits: Limits) -> Limits {
    Limits { services: 0, ..limits }
}

fn check(cuboids: &[Cuboid], limits: &Limits) -> Tree {
    let mut tree = build(cuboids, limits).expect("the lists fit");
    assert!(tree.bytes() <= limits.bytes, "{} bytes of {}", tree.bytes(), limits.bytes);
    let points = edge_points(cuboids, 7);
    let expected: Vec<_> = points.iter().map(|point| linear(cuboids, point)).collect();
    // The fastest last: who gets the tree is to have that.
    for paths in tree.all_paths().into_iter().rev() {
        tree.paths = paths;
        for (point, expected) in points.iter().zip(&expected) {
            assert_eq!(tree.find(point), *expected, "{point:?}");
        }
        for length in (0..=65).filter(|&length| length <= points.len()) {
            let mut values = vec![7; length];
            tree.find_batch(&points[..length], &mut values);
            assert_eq!(values, expected[..length]);
        }
    }
    tree
}

/// The bytes that the cuboids need, who are allowed too few.
fn needed(cuboids: &[Cuboid], bytes: usize) -> usize {
    match build(cuboids, &limits(bytes, 8)) {
        Err(Error::TooLarge { cuboids: told, needed, allowed }) => {
            assert_eq!((told, allowed), (cuboids.len(), bytes));
            needed
        }
        other => panic!("{other:?} in {bytes} bytes"),
    }
}

/// Intervals of a dimension: wildcards, single values, prefixes, anything, inside a small part or anywhere.
fn interval(dimension: usize) -> BoxedStrategy<(u32, u32)> {
    let top = DOMAIN[dimension];
    let small = 40.min(top);
    prop_oneof![
        2 => Just((0, top)),
        2 => Just((0, top.min(65535))),
        3 => (0..=small).prop_map(|value| (value, value)),
        3 => (0..=small, 0..=small).prop_map(|(a, b)| (a.min(b), a.max(b))),
        1 => Just((top, top)),
        2 => (0..=top, 0..=top).prop_map(|(a, b)| (a.min(b), a.max(b))),
    ]
    .boxed()
}

/// Nets of any length, of few addresses.
fn net() -> impl Strategy<Value = (u32, u32)> {
    let address = prop_oneof![0_u32..40, Just(u32::MAX), (0_u32..8).prop_map(|high| high << 29 | 5)];
    (address, prop_oneof![0_u32..=32, 24_u32..=32]).prop_map(|(address, length)| {
        let last = u32::MAX.checked_shr(length).unwrap_or(0);
        (address & !last, address | last)
    })
}

fn cuboid() -> impl Strategy<Value = Cuboid> {
    cuboid_of(interval(0), interval(1))
}

fn cuboid_of(
    sources: impl Strategy<Value = (u32, u32)>,
    destinations: impl Strategy<Value = (u32, u32)>,
) -> impl Strategy<Value = Cuboid> {
    (sources, destinations, interval(2), interval(3), interval(4), 0_u32..12).prop_map(
        |(a, b, c, d, e, value)| Cuboid {
            low: [a.0, b.0, c.0, d.0, e.0],
            high: [a.1, b.1, c.1, d.1, e.1],
            value,
        },
    )
}

/// A feature that no processor is asked for rightly would leave out a way in silence.
#[test]
#[cfg(target_arch = "x86_64")]
fn trees_are_walked_in_every_way_that_there_is() {
    let has_avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("bmi2");
    let has_avx512 = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl");
    let ways = check(&[], &Limits::of(0)).all_paths().len();
    assert_eq!(ways, 1 + usize::from(has_avx2) + usize::from(has_avx512));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(80))]

    #[test]
    fn equals_a_linear_scan(cuboids in vec(cuboid(), 0..150), leaf in 1_usize..40, ascending in any::<bool>()) {
        let mut cuboids = cuboids;
        if ascending {
            (0..).zip(&mut cuboids).for_each(|(index, cuboid)| cuboid.value = index);
        }
        check(&cuboids, &limits(200_000, leaf));
    }

    #[test]
    fn equals_a_linear_scan_of_nets(nets in vec(cuboid_of(net(), net()), 0..150), leaf in 1_usize..40) {
        let tree = check(&nets, &limits(200_000, leaf));
        prop_assert_eq!(tree.form(), Form::Nets);
        let tree = check(&nets, &with_services(limits(4_000_000, leaf)));
        prop_assert_eq!(tree.form(), if nets.is_empty() { Form::Nets } else { Form::Services });
    }

    /// That of nets or that of ranges, by how many ranges there are.
    #[test]
    fn equals_a_linear_scan_in_either_form(
        nets in vec(cuboid_of(net(), net()), 60..100), others in vec((cuboid(), 0_usize..60), 0..6)
    ) {
        let mut cuboids = nets;
        for (other, place) in others {
            cuboids.insert(place, other);
        }
        check(&cuboids, &limits(200_000, 12));
        check(&cuboids, &with_services(limits(4_000_000, 12)));
    }

    #[test]
    fn nets_of_a_range_are_all_of_it(first in any::<u32>(), second in any::<u32>(), bits in 0_u32..32) {
        let (first, second) = (first >> bits, second >> bits);
        let (low, high) = (first.min(second), first.max(second));
        let mut next = Some(low);
        for (first, last) in rules::nets(low, high) {
            prop_assert_eq!(Some(first), next);
            let span = last - first;
            prop_assert!(span & span.wrapping_add(1) == 0 && first & span == 0, "{first} to {last} is no net");
            next = last.checked_add(1);
        }
        prop_assert_eq!(next, high.checked_add(1));
    }

    #[test]
    fn equals_a_linear_scan_in_any_budget(cuboids in vec(cuboid(), 1..150), spare in 0_usize..40_000) {
        let limits = limits(needed(&cuboids, 0) + spare, 8);
        check(&cuboids, &limits);
        check(&cuboids, &with_services(limits));
    }
}

const ALL: Cuboid = Cuboid { low: [0; DIMENSIONS], high: DOMAIN, value: 5 };

/// A range of 14 nets among so many cuboids is parted if that makes at most a sixteenth more of them.
#[test]
fn few_ranges_are_parted_into_nets() {
    for (cuboids, form) in [(207, Form::Ranges), (208, Form::Nets)] {
        let mut cuboids = vec![ALL; cuboids];
        cuboids[0].value = 7;
        (cuboids[0].low[0], cuboids[0].high[0]) = (1, 0xFE);
        let tree = check(&cuboids, &limits(usize::MAX, 16));
        assert_eq!(tree.form(), form);
        for source in 0..=0x1FF {
            let expected = if (1..=0xFE).contains(&source) { 7 } else { ALL.value };
            assert_eq!(tree.find(&[source, 2, 3, 4, 5]), expected, "{source}");
        }
    }
}

#[test]
fn no_cuboid_contains_nothing() {
    let tree = check(&[], &Limits::of(0));
    assert_eq!(tree.find(&[1, 2, 3, 4, 5]), NONE);
    assert_eq!(tree.shape().trees, 0);
}

#[test]
fn one_cuboid() {
    let one = Cuboid { low: [10, 20, 30, 40, 6], high: [19, 29, 39, 49, 6], value: 3 };
    let tree = check(&[one], &Limits::of(1));
    assert_eq!(tree.find(&[19, 29, 39, 49, 6]), 3);
    assert_eq!(tree.find(&[20, 29, 39, 49, 6]), NONE);
}

#[test]
fn a_wildcard_hides_all_that_follows() {
    let rest = (0..100).map(|value| Cuboid { low: [value; DIMENSIONS], high: DOMAIN, value });
    let cuboids: Vec<_> = std::iter::once(ALL).chain(rest).collect();
    let tree = check(&cuboids, &Limits::of(cuboids.len()));
    assert_eq!(tree.shape().nodes, 0);
    assert_eq!(tree.shape().blocks, 1);
}

#[test]
fn ends_beyond_the_domain_are_cut_and_empty_cuboids_are_left_out() {
    let beyond = Cuboid { low: [0; DIMENSIONS], high: [u32::MAX; DIMENSIONS], value: 9 };
    let empty = Cuboid { low: [5; DIMENSIONS], high: [4; DIMENSIONS], value: 1 };
    let outside = Cuboid { low: [0, 0, 0, 65537, 0], high: [u32::MAX; DIMENSIONS], value: 2 };
    let tree = check(&[empty, outside, beyond], &Limits::of(3));
    assert_eq!(tree.find(&DOMAIN), 9);
}

#[test]
fn duplicates_answer_as_the_first() {
    let cuboids: Vec<_> =
        (0..600).map(|value| Cuboid { low: [1; DIMENSIONS], high: [9; DIMENSIONS], value }).collect();
    assert_eq!(check(&cuboids, &Limits::of(600)).find(&[5; DIMENSIONS]), 0);
}

#[test]
fn a_value_may_look_like_no_answer() {
    let hole = Cuboid { low: [3; DIMENSIONS], high: [4; DIMENSIONS], value: NONE };
    let tree = check(&[hole, ALL], &Limits::of(2));
    assert_eq!(tree.find(&[3; DIMENSIONS]), NONE);
}

/// All overlap, none hides another: nothing but long leaves is possible.
fn staircase(steps: u32) -> Vec<Cuboid> {
    let stair = |step: u32| Cuboid {
        low: [1000 - step, 1000 - step, 0, 0, 0],
        high: [1000 + 2 * step, 3000 - step, 65536, 65536, 255],
        value: step,
    };
    (0..steps).map(stair).collect()
}

/// The same of nets and ports.
fn staircase_of_nets(steps: u32) -> Vec<Cuboid> {
    let stair = |step: u32| Cuboid {
        low: [0, step << 8, 1000 - step, 0, 0],
        high: [u32::MAX, step << 8 | 0xFF, 1000 + 2 * step, 3000 - step, 255],
        value: step,
    };
    (0..steps).map(stair).collect()
}

/// The same of few services.
fn staircase_of_services(steps: u32) -> Vec<Cuboid> {
    let mut cuboids = staircase_of_nets(steps);
    for cuboid in &mut cuboids {
        (cuboid.low[2], cuboid.high[2]) = (cuboid.value % 3, 9);
        (cuboid.low[3], cuboid.high[3]) = (5, 7 + cuboid.value % 5);
        (cuboid.low[4], cuboid.high[4]) = (6, 6 + cuboid.value % 2 * 11);
    }
    cuboids
}

/// Of each form.
fn staircases(steps: u32) -> [(Vec<Cuboid>, Form); 3] {
    [
        (staircase(steps), Form::Ranges),
        (staircase_of_nets(steps), Form::Nets),
        (staircase_of_services(steps), Form::Services),
    ]
}

/// So many services as there are bits in a line, and one more; so many kinds of ports as there are in a byte, and one more.
#[test]
fn services_are_numbered_if_they_are_few() {
    let of_port = |value: u32, port: u32, protocol: u32| {
        let (low, high) =
            ([0, value << 8, 0, port, protocol], [u32::MAX, value << 8 | 0xFF, 65536, port, protocol]);
        Cuboid { low, high, value }
    };
    for (services, form) in [(511, Form::Services), (512, Form::Services), (513, Form::Nets)] {
        // 33 kinds of ports, with all others, and 17 of protocols.
        let cuboids: Vec<_> =
            (0..services).map(|value| of_port(value, 10 * (value % 32), value / 32)).collect();
        let tree = check(&cuboids, &with_services(limits(usize::MAX, 16)));
        assert_eq!(tree.form(), form, "{services} services");
        for (cuboid, other) in cuboids.iter().zip(cuboids.iter().cycle().skip(1)) {
            let [own, others] = [cuboid.low, other.low];
            for point in
                [own, [own[0], own[1], own[2], others[3], others[4]], [0, own[1], 65536, own[3], others[4]]]
            {
                assert_eq!(tree.find(&point), linear(&cuboids, &point), "{point:?}");
            }
        }
    }
    for (ports, form) in [(255, Form::Services), (256, Form::Nets)] {
        let cuboids: Vec<_> = (0..ports).map(|value| of_port(value, 10 * value, 6)).collect();
        let tree = check(&cuboids, &with_services(limits(usize::MAX, 16)));
        assert_eq!(tree.form(), form, "{ports} ports");
    }
}

#[test]
fn lists_longer_than_a_reference_can_count() {
    for (cuboids, form) in [247, 248, 249, 256, 264, 900].into_iter().flat_map(staircases) {
        let limits = limits(usize::MAX, 1000);
        let limits = if form == Form::Services { with_services(limits) } else { limits };
        let tree = check(&cuboids, &limits);
        assert_eq!((tree.shape().nodes, tree.form()), (0, form));
        let last = cuboids[cuboids.len() - 1];
        assert_eq!(tree.find(&last.low), last.value);
    }
}

/// Leaves of one block, of those that are always searched, and longer ones.
#[test]
fn leaves_of_any_length() {
    let lengths = [1, 7, 8, 9, 16, 17, 24, 31, 32, 33, 40, 41, 64];
    for (cuboids, _) in lengths.into_iter().flat_map(staircases) {
        let tree = check(&cuboids, &with_services(limits(usize::MAX, 1000)));
        let is_of_nets = cuboids[0].low[1] == 0;
        assert_eq!(tree.form(), if is_of_nets { Form::Services } else { Form::Ranges });
        for cuboid in &cuboids {
            for point in [cuboid.low, cuboid.high] {
                assert_eq!(tree.find(&point), linear(&cuboids, &point));
            }
        }
    }
}

/// Addresses are compared as signed numbers, everything else is below 2^31 anyway.
#[test]
fn addresses_on_both_sides_of_the_middle() {
    let middle = 1 << 31;
    for dimension in [0, 1] {
        let cuboid = |value: u32| {
            let mut cuboid = Cuboid { value, ..ALL };
            let low =
                (middle - 200 + 2 * value).wrapping_add(if value.is_multiple_of(5) { middle } else { 0 });
            (cuboid.low[dimension], cuboid.high[dimension]) = (low, low + 1);
            cuboid
        };
        let cuboids: Vec<_> = (0..200).map(cuboid).collect();
        let tree = check(&cuboids, &Limits::of(cuboids.len()));
        assert!(tree.shape().depth > 0, "{:?}", tree.shape());
        for address in (middle - 210..=middle + 210).chain(0..210).chain(u32::MAX - 210..=u32::MAX) {
            let mut point = [7; DIMENSIONS];
            point[dimension] = address;
            assert_eq!(tree.find(&point), linear(&cuboids, &point), "{address}");
        }
    }
}

#[test]
fn too_large_tells_the_numbers() {
    let cuboids = staircase(800);
    let needed = needed(&cuboids, 20_000);
    assert!(needed > 25_600 && needed < 30_000, "{needed}");
    assert!(build(&cuboids, &limits(needed, 8)).is_ok());
}

#[test]
fn every_port_may_have_its_own_rule() {
    for dimension in [2, 3] {
        let mut cuboids = Vec::new();
        for port in (0..=65536).rev() {
            let (mut low, mut high) = (ALL.low, ALL.high);
            low[dimension] = port;
            high[dimension] = if port % 1000 == 7 { 65536 } else { port };
            cuboids.push(Cuboid { low, high, value: port });
        }
        let tree = check(&cuboids, &Limits::of(cuboids.len()));
        for port in [0, 1, 6, 7, 8, 65534, 65535, 65536] {
            let mut point = [3; DIMENSIONS];
            point[dimension] = port;
            assert_eq!(tree.find(&point), linear(&cuboids, &point), "{port}");
        }
    }
}

/// Prefixes in both addresses, often a wildcard in one, and few services.
fn prefixes(count: u32) -> Vec<Cuboid> {
    const LENGTHS: [[u32; 2]; 8] =
        [[0, 24], [8, 32], [16, 16], [24, 0], [28, 32], [32, 4], [32, 32], [32, 24]];
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = move |below: u32| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from((state >> 33) % u64::from(below)).expect("below 2^32")
    };
    let cuboid = |value| {
        let mut cuboid = Cuboid { value: value / 3, ..ALL };
        for (dimension, length) in LENGTHS[next(8) as usize].into_iter().enumerate() {
            let span = u32::MAX.checked_shr(length).unwrap_or(0);
            cuboid.low[dimension] = next(400).wrapping_mul(0x0104_010F) & !span;
            cuboid.high[dimension] = cuboid.low[dimension] | span;
        }
        if next(4) > 0 {
            (cuboid.low[3], cuboid.high[3]) = (next(20) * 7, 140 + next(9));
        }
        cuboid
    };
    (0..count).map(cuboid).collect()
}

#[test]
fn many_rules_in_large_and_small_budgets() {
    let cuboids = prefixes(6000);
    for bytes_per_rule in [44, 60, 160, 1000] {
        let services =
            check(&cuboids, &with_services(limits(cuboids.len() * bytes_per_rule + (140 << 10), 16)));
        assert!(services.shape().depth > 1, "{:?}", services.shape());
        let tree = check(&cuboids, &limits(cuboids.len() * bytes_per_rule, 16));
        assert!(tree.shape().depth > 1, "{:?}", tree.shape());
    }
}

#[test]
fn wide_rules_get_trees_of_their_own() {
    let mut cuboids = Vec::new();
    for value in 0..2000_u32 {
        let mut cuboid = ALL;
        let (wide, tight) = if value % 2 == 0 { (0, 1) } else { (1, 0) };
        let spread = value.wrapping_mul(0x9E37_79B9);
        (cuboid.low[tight], cuboid.high[tight]) = (spread, spread | 3);
        cuboid.high[wide] = u32::MAX - value;
        // Values that do not ascend make the image translate ranks.
        cuboid.value = value % 7;
        cuboids.push(cuboid);
    }
    let tree = check(&cuboids, &Limits::of(cuboids.len()));
    assert!(tree.shape().trees > 1, "{:?}", tree.shape());
}

#[test]
fn trees_of_late_rules_are_left_out_only_where_nothing_can_better_an_answer() {
    let narrow = (0..3000_u32).map(|value| {
        let spread = value.wrapping_mul(0x9E37_79B9);
        let ends = [spread, spread.rotate_left(9), 0, 0, 0];
        let high = [ends[0] | 0xFF, ends[1] | 0xFF, DOMAIN[2], DOMAIN[3], DOMAIN[4]];
        Cuboid { low: ends, high, value }
    });
    let wide = (3000..3200_u32).map(|value| Cuboid {
        low: [value, 0, value, 2 * value, 0],
        high: [u32::MAX, u32::MAX - value, 3200, 20 * value, 255],
        value,
    });
    let cuboids: Vec<_> = narrow.chain(wide).collect();
    let tree = check(&cuboids, &Limits::of(cuboids.len()));
    let walked = tree.image[0].0[6] as usize;
    assert!(0 < walked && walked < tree.shape().trees, "{walked} of {:?}", tree.shape());
}
