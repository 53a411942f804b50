//! Whose labels satisfy a selector, without asking everyone.

use indexmap::IndexSet;
use rustc_hash::{FxBuildHasher, FxHashMap};

use crate::labels::InheritedLabels;
use crate::selector::Selector;

/// Who has which labels. Members with the same labels from the same profiles are one *kind*: pods of one template are
/// asked about together.
pub struct LabelIndex<'a> {
    kinds: IndexSet<InheritedLabels<'a>, FxBuildHasher>,
    kind_of: Vec<usize>,
    /// Of each kind, ascending.
    members: Vec<Vec<usize>>,
    /// The kinds that have a value of a label.
    holders: FxHashMap<(&'a str, &'a str), Vec<usize>>,
}

impl<'a> LabelIndex<'a> {
    /// Of members, numbered in order.
    pub fn of(labels: impl IntoIterator<Item = InheritedLabels<'a>>) -> Self {
        let (mut kinds, mut members): (IndexSet<_, FxBuildHasher>, Vec<Vec<usize>>) = Default::default();
        let mut kind_of = Vec::new();
        for (member, labels) in labels.into_iter().enumerate() {
            let kind = kinds.insert_full(labels).0;
            members.resize_with(kinds.len(), Vec::new);
            members[kind].push(member);
            kind_of.push(kind);
        }
        let mut holders: FxHashMap<_, Vec<usize>> = FxHashMap::default();
        for (kind, labels) in kinds.iter().enumerate() {
            for pair in labels.effective() {
                holders.entry(pair).or_default().push(kind);
            }
        }
        Self { kinds, kind_of, members, holders }
    }

    /// How many members there are.
    pub fn count(&self) -> usize {
        self.kind_of.len()
    }

    /// The numbers of those that satisfy the selector, ascending.
    pub fn matching(&self, selector: &Selector) -> Vec<usize> {
        let matches = |kind: &usize| selector.matches(&self.kinds[*kind]);
        let kinds: Vec<usize> = match self.candidates(selector) {
            Some(candidates) => candidates.iter().copied().filter(matches).collect(),
            None => (0..self.kinds.len()).filter(matches).collect(),
        };
        let mut members: Vec<usize> =
            kinds.iter().flat_map(|&kind| self.members[kind].iter().copied()).collect();
        members.sort_unstable();
        members
    }

    /// Whether a member satisfies the selector.
    pub fn is_match(&self, member: usize, selector: &Selector) -> bool {
        selector.matches(&self.kinds[self.kind_of[member]])
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
        let index = LabelIndex::of(own.iter().map(|own| InheritedLabels::new(own, [&profile])));
        let matching = |text: &str| index.matching(&Selector::parse(text).expect("a selector"));
        assert_eq!(matching("a == 'x'"), [0, 2]);
        assert_eq!(matching("a == 'x' && !has(b)"), [0]);
        assert_eq!(matching("a == 'z'"), [] as [usize; 0]);
        assert_eq!(matching("a != 'x'"), [1]);
        assert_eq!(matching(""), [0, 1, 2]);
    }
}
