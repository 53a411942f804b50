use super::*;

#[test]
fn sets_have_the_size_asked_for_and_no_duplicates() {
    for family in Family::ALL {
        for count in [1, 10, 1000, 10_000] {
            let rules = rules(family, count, 1);
            let distinct: HashSet<_> = rules.iter().copied().collect();
            assert_eq!((rules.len(), distinct.len()), (count, count), "{family:?}");
        }
    }
}

#[test]
fn a_seed_gives_one_set() {
    for family in Family::ALL {
        assert_eq!(rules(family, 500, 3), rules(family, 500, 3));
        assert_ne!(rules(family, 500, 3), rules(family, 500, 4));
    }
}

#[test]
fn no_rule_comes_behind_one_that_holds_it() {
    let inside = |inner: &Rule, outer: &Rule| {
        (0..FIELDS)
            .all(|field| outer.low[field] <= inner.low[field] && inner.high[field] <= outer.high[field])
    };
    for family in Family::ALL {
        let rules = rules(family, 1000, 2);
        for (place, rule) in rules.iter().enumerate() {
            assert!(!rules[..place].iter().any(|earlier| inside(rule, earlier)), "{family:?} {rule:?}");
        }
    }
}

/// Percent of the rules that hold.
fn share(rules: &[Rule], holds: impl Fn(&Rule) -> bool) -> usize {
    rules.iter().filter(|rule| holds(rule)).count() * 100 / rules.len()
}

#[test]
fn families_differ_as_published_ones_do() {
    let wide = |field: usize| move |rule: &Rule| rule.high[field] - rule.low[field] >= 1 << 24;
    let [acl, firewall, chain] = Family::ALL.map(|family| rules(family, 10_000, 1));
    assert!(share(&acl, wide(0)) <= 2 && share(&acl, wide(1)) <= 5);
    assert!((58..70).contains(&share(&firewall, wide(0))) && (24..35).contains(&share(&firewall, wide(1))));
    assert!((9..16).contains(&share(&chain, wide(0))) && (5..11).contains(&share(&chain, wide(1))));
}

#[test]
fn most_packets_are_held_by_a_rule() {
    for family in Family::ALL {
        let rules = rules(family, 300, 5);
        let packets = trace(&rules, 1000, 6);
        let held = packets.iter().filter(|packet| rules.iter().any(|rule| rule.contains(packet))).count();
        assert!(held >= 950 && packets.iter().all(|packet| packet[2] <= TOP[2] && packet[4] <= TOP[4]));
    }
}
