//! Text to selectors: what is accepted has one canonical text that means the same, what is refused says where.

use std::collections::{BTreeMap, BTreeSet};

use labelgate::selector::{Selector, SelectorError};

/// Keys and values that label sets are made of; more would cost speed and show nothing else.
const MOST_WORDS: usize = 6;

/// The bytes are the text.
pub fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match Selector::parse(text) {
        Ok(selector) => accepted(text, &selector),
        Err(error) => refused(text, &error),
    }
}

fn refused(text: &str, error: &SelectorError) {
    assert!(text.is_char_boundary(error.offset()), "the place is between characters");
    let said = error.to_string();
    assert_eq!(
        said.lines().count(),
        error.message().lines().count() + 2,
        "message, line and caret: {said:?}"
    );
    assert!(said.ends_with('^'), "the caret is last: {said:?}");
    assert!(!said.contains(|c: char| c.is_control() && c != '\n' && c != '\t'), "safe to print: {said:?}");
}

/// S-2, S-8 to S-13.
fn accepted(text: &str, selector: &Selector) {
    let canonical = selector.canonical();
    let again = Selector::parse(&canonical).expect("canonical text is a selector");
    assert_eq!(&again, selector, "canonical text reads as the same selector");
    assert_eq!(again.canonical(), canonical, "canonical text is its own canonical text");
    let opposite = !selector.clone();
    if !text.trim_matches([' ', '\t']).is_empty() {
        assert_eq!(Selector::parse(&format!("!({text})")).as_ref(), Ok(&opposite), "negation, as text");
    }
    let prefixed = selector.prefixed("pcns.");
    for labels in label_sets(text) {
        let matches = selector.matches(&labels);
        assert_eq!(again.matches(&labels), matches, "canonical text means the same: {labels:?}");
        assert_eq!(opposite.matches(&labels), !matches, "negation: {labels:?}");
        let renamed: BTreeMap<_, _> =
            labels.iter().map(|(key, value)| (format!("pcns.{key}"), value.clone())).collect();
        assert_eq!(prefixed.matches(&renamed), matches, "prefixed (M-21): {labels:?}");
        let has = |(key, value): (&str, &str)| labels.get(key).is_some_and(|own| own == value);
        assert!(!matches || selector.required_labels().into_iter().all(has), "required labels: {labels:?}");
    }
}

/// Label sets over what stands in the text: none, each key with each value, and all keys with each value.
fn label_sets(text: &str) -> Vec<BTreeMap<String, String>> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || "_./-".contains(c);
    let keys: BTreeSet<_> = text.split(|c| !is_name(c)).filter(|word| !word.is_empty()).collect();
    let keys: Vec<_> = keys.into_iter().take(MOST_WORDS).collect();
    let values: BTreeSet<_> = text.split(['"', '\'']).chain(["", "other"]).collect();
    let mut sets = vec![BTreeMap::new()];
    for value in values.into_iter().take(MOST_WORDS) {
        let labels = |keys: &[&str]| keys.iter().map(|key| ((*key).to_owned(), value.to_owned())).collect();
        sets.extend(keys.iter().map(|key| labels(&[key])));
        sets.push(labels(&keys));
    }
    sets
}
