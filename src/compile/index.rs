//! Whose labels satisfy a selector, without asking everyone.

use rustc_hash::FxHashMap;

use crate::labels::InheritedLabels;
use crate::selector::Selector;

/// Label sets, numbered, and who has which value of which label.
pub struct LabelIndex<'a> {
    labels: Vec<InheritedLabels<'a>>,
    holders: FxHashMap<(&'a str, &'a str), Vec<usize>>,
}

impl<'a> LabelIndex<'a> {
    pub fn of(labels: Vec<InheritedLabels<'a>>) -> Self {
        let mut holders: FxHashMap<_, Vec<usize>> = FxHashMap::default();
        for (number, labels) in labels.iter().enumerate() {
            for pair in labels.effective() {
                holders.entry(pair).or_default().push(number);
            }
        }
        Self { labels, holders }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.labels.len()
    }

    /// The numbers of those that satisfy the selector, ascending.
    pub fn matching(&self, selector: &Selector) -> Vec<usize> {
        let matches = |number: &usize| self.is_match(*number, selector);
        match self.candidates(selector) {
            Some(candidates) => candidates.iter().copied().filter(matches).collect(),
            None => (0..self.count()).filter(matches).collect(),
        }
    }

    pub fn is_match(&self, number: usize, selector: &Selector) -> bool {
        selector.matches(&self.labels[number])
    }

    /// The shortest list of holders of a label that the selector requires; `None` where it requires none.
    fn candidates<'s>(&'s self, selector: &'s Selector) -> Option<&'s [usize]> {
        let required = selector.required_labels().into_iter();
        required
            .map(|pair| self.holders.get(&pair).map_or(&[][..], Vec::as_slice))
            .min_by_key(|list| list.len())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Inherited labels are found too, overridden ones are not.
    #[test]
    fn candidates_are_those_with_the_effective_label() {
        let own = [("a", "x"), ("a", "y"), ("b", "x")]
            .map(|(key, value)| BTreeMap::from([(key.to_owned(), value.to_owned())]));
        let profile = BTreeMap::from([("a".to_owned(), "x".to_owned())]);
        let index = LabelIndex::of(own.iter().map(|own| InheritedLabels::new(own, [&profile])).collect());
        let matching = |text: &str| index.matching(&Selector::parse(text).expect("a selector"));
        assert_eq!(matching("a == 'x'"), [0, 2]);
        assert_eq!(matching("a == 'x' && !has(b)"), [0]);
        assert_eq!(matching("a == 'z'"), [] as [usize; 0]);
        assert_eq!(matching("a != 'x'"), [1]);
        assert_eq!(matching(""), [0, 1, 2]);
    }
}
