//! Whose labels satisfy a selector, and which selectors labels satisfy, without asking everyone.

use std::collections::BTreeMap;
use std::hash::Hash;
use std::sync::Arc;

use indexmap::set::Slice;
use indexmap::{Equivalent, IndexMap, IndexSet};
use rustc_hash::{FxBuildHasher, FxHashMap};
use slab::Slab;

use crate::labels::effective;
use crate::selector::Selector;

/// Label keys to values.
pub type LabelMap = BTreeMap<String, String>;

/// Members with the same own labels and the same profiles: pods of one template are asked about together.
pub struct Kind {
    key: Arc<KindKey>,
    ///
    pub labels: LabelMap,
    members: Vec<usize>,
}

#[derive(PartialEq, Eq, Hash)]
struct KindKey {
    own: LabelMap,
    /// Names, in order.
    profiles: Vec<String>,
}

/// [`KindKey`] of something that is not ours.
#[derive(Hash)]
struct KindOf<'a> {
    own: &'a LabelMap,
    profiles: &'a [String],
}

impl Equivalent<Arc<KindKey>> for KindOf<'_> {
    fn equivalent(&self, key: &Arc<KindKey>) -> bool {
        *self.own == key.own && *self.profiles == key.profiles
    }
}

/// Many may go one after the other: each is found without a search.
type Ids = IndexSet<usize, FxBuildHasher>;

/// Ids by the two parts of a label.
type ByLabel = FxHashMap<String, FxHashMap<String, Ids>>;

fn of_label<'a>(by_label: &'a ByLabel, key: &str, value: &str) -> &'a Slice<usize> {
    by_label.get(key).and_then(|values| values.get(value)).map_or(Slice::new(), Ids::as_slice)
}

fn enter(by_label: &mut ByLabel, key: &str, value: &str, id: usize) {
    if !by_label.contains_key(key) {
        by_label.insert(key.to_owned(), FxHashMap::default());
    }
    let values = by_label.get_mut(key).expect("entered above");
    match values.get_mut(value) {
        Some(ids) => {
            ids.insert(id);
        }
        None => {
            values.insert(value.to_owned(), Ids::from_iter([id]));
        }
    }
}

fn strike(by_label: &mut ByLabel, key: &str, value: &str, id: usize) {
    let Some(values) = by_label.get_mut(key) else { return };
    if let Some(ids) = values.get_mut(value) {
        ids.swap_remove(&id);
        if ids.is_empty() {
            values.remove(value);
        }
    }
    if values.is_empty() {
        by_label.remove(key);
    }
}

/// Who has which labels.
#[derive(Default)]
pub struct LabelIndex {
    kinds: Slab<Kind>,
    by_key: IndexMap<Arc<KindKey>, usize, FxBuildHasher>,
    /// The kinds that have a value of a label.
    holders: ByLabel,
    /// The kinds that list a profile.
    by_profile: FxHashMap<String, Ids>,
}

impl LabelIndex {
    /// Adds a member; gives its kind.
    pub fn insert<'p>(
        &mut self,
        member: usize,
        own: &LabelMap,
        profiles: &[String],
        labels_of: impl Fn(&str) -> Option<&'p LabelMap>,
    ) -> usize {
        let kind = match self.by_key.get(&KindOf { own, profiles }) {
            Some(&kind) => kind,
            None => self.insert_kind(own, profiles, labels_of),
        };
        self.kinds[kind].members.push(member);
        kind
    }

    fn insert_kind<'p>(
        &mut self,
        own: &LabelMap,
        profiles: &[String],
        labels_of: impl Fn(&str) -> Option<&'p LabelMap>,
    ) -> usize {
        let labels = effective(own, profiles.iter().filter_map(|name| labels_of(name)));
        let kind = self.kinds.vacant_key();
        for (key, value) in &labels {
            enter(&mut self.holders, key, value, kind);
        }
        for name in profiles {
            self.by_profile.entry(name.clone()).or_default().insert(kind);
        }
        let key = Arc::new(KindKey { own: own.clone(), profiles: profiles.to_vec() });
        self.by_key.insert(Arc::clone(&key), kind);
        self.kinds.insert(Kind { key, labels, members: Vec::new() })
    }

    /// Takes a member out; says whether it was the last one of its kind, which then is no more.
    pub fn remove(&mut self, member: usize, kind: usize) -> bool {
        let members = &mut self.kinds[kind].members;
        let place = members.iter().position(|&other| other == member).expect("it is of this kind");
        members.swap_remove(place);
        if !members.is_empty() {
            return false;
        }
        let Kind { key, labels, .. } = self.kinds.remove(kind);
        let KindKey { own, profiles } = &*key;
        for (key, value) in &labels {
            strike(&mut self.holders, key, value, kind);
        }
        for name in profiles {
            if let Some(kinds) = self.by_profile.get_mut(name) {
                kinds.swap_remove(&kind);
                if kinds.is_empty() {
                    self.by_profile.remove(name);
                }
            }
        }
        self.by_key.swap_remove(&KindOf { own, profiles });
        true
    }

    /// The kinds that list a profile, in the order of their numbers.
    pub fn with_profile(&self, name: &str) -> Vec<usize> {
        let mut kinds: Vec<usize> = self.by_profile.get(name).into_iter().flatten().copied().collect();
        kinds.sort_unstable();
        kinds
    }

    /// Labels of its profiles have changed; gives the labels from before.
    pub fn relabel<'p>(&mut self, kind: usize, labels_of: impl Fn(&str) -> Option<&'p LabelMap>) -> LabelMap {
        let Kind { key, labels, .. } = &mut self.kinds[kind];
        let new = effective(&key.own, key.profiles.iter().filter_map(|name| labels_of(name)));
        let old = std::mem::replace(labels, new);
        for (key, value) in &old {
            strike(&mut self.holders, key, value, kind);
        }
        for (key, value) in &self.kinds[kind].labels {
            enter(&mut self.holders, key, value, kind);
        }
        old
    }

    pub fn kind(&self, kind: usize) -> &Kind {
        &self.kinds[kind]
    }

    /// Those that satisfy the selector.
    pub fn matching(&self, selector: &Selector) -> impl Iterator<Item = usize> {
        let matches = |kind: &&Kind| selector.matches(&kind.labels);
        let kinds: Vec<&Kind> = match self.candidates(selector) {
            Some(kinds) => kinds.iter().map(|&kind| &self.kinds[kind]).filter(matches).collect(),
            None => self.kinds.iter().map(|(_, kind)| kind).filter(matches).collect(),
        };
        kinds.into_iter().flat_map(|kind| kind.members.iter().copied())
    }

    /// The shortest list of holders of a label that the selector requires; `None` where it requires none.
    fn candidates(&self, selector: &Selector) -> Option<&Slice<usize>> {
        let required = selector.required_labels().into_iter();
        required.map(|(key, value)| of_label(&self.holders, key, value)).min_by_key(|list| list.len())
    }
}

/// Selectors, each by one of the labels that it requires.
#[derive(Default)]
pub struct SelectorIndex {
    by_label: ByLabel,
    /// Those that require none.
    others: Vec<usize>,
}

impl SelectorIndex {
    pub fn insert(&mut self, selector: &Selector, id: usize) {
        let required = selector.required_labels().into_iter();
        match required.min_by_key(|(key, value)| of_label(&self.by_label, key, value).len()) {
            Some((key, value)) => enter(&mut self.by_label, key, value, id),
            None => self.others.push(id),
        }
    }

    pub fn remove(&mut self, selector: &Selector, id: usize) {
        let required = selector.required_labels();
        if required.is_empty() {
            self.others.retain(|&other| other != id);
        }
        for (key, value) in required {
            strike(&mut self.by_label, key, value, id);
        }
    }

    /// Those that the labels may satisfy: each once, and no other one can.
    pub fn candidates(&self, labels: &LabelMap) -> impl Iterator<Item = usize> {
        let by_label = labels.iter().flat_map(|(key, value)| of_label(&self.by_label, key, value));
        by_label.chain(&self.others).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> LabelMap {
        pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    fn selector(text: &str) -> Selector {
        Selector::parse(text).expect("a selector")
    }

    /// Inherited labels are found too, overridden ones are not; what is taken out is not found.
    #[test]
    fn candidates_are_those_with_the_effective_label() {
        let own = [[("a", "x")], [("a", "y")], [("b", "x")]].map(|pairs| labels(&pairs));
        let mut profile = labels(&[("a", "x")]);
        let mut index = LabelIndex::default();
        let kinds: Vec<usize> = (0..)
            .zip(&own)
            .map(|(member, own)| index.insert(member, own, &["p".to_owned()], |_| Some(&profile)))
            .collect();
        let matching = |index: &LabelIndex, text: &str| {
            let mut found: Vec<_> = index.matching(&selector(text)).collect();
            found.sort_unstable();
            found
        };
        assert_eq!(matching(&index, "a == 'x'"), [0, 2]);
        assert_eq!(matching(&index, "a == 'x' && !has(b)"), [0]);
        assert_eq!(matching(&index, "a == 'z'"), [] as [usize; 0]);
        assert_eq!(matching(&index, "a != 'x'"), [1]);
        assert_eq!(matching(&index, ""), [0, 1, 2]);
        profile = labels(&[("a", "z")]);
        assert_eq!(index.with_profile("p"), kinds);
        for &kind in &kinds {
            index.relabel(kind, |_| Some(&profile));
        }
        assert_eq!(matching(&index, "a == 'x'"), [0]);
        assert_eq!(matching(&index, "a == 'z'"), [2]);
        assert!(index.remove(2, kinds[2]));
        assert_eq!(matching(&index, "a == 'z'"), [] as [usize; 0]);
        assert_eq!(index.with_profile("p"), kinds[..2]);
    }

    #[test]
    fn selectors_are_found_by_what_they_require() {
        let texts = ["a == 'x' && b == 'y'", "a == 'x'", "has(a)", "b in {'y'}", "a == 'z'"];
        let mut index = SelectorIndex::default();
        for (id, text) in texts.iter().enumerate() {
            index.insert(&selector(text), id);
        }
        let found = |index: &SelectorIndex| {
            let mut found: Vec<_> = index.candidates(&labels(&[("a", "x"), ("b", "y")])).collect();
            found.sort_unstable();
            found
        };
        assert_eq!(found(&index), [0, 1, 2, 3]);
        index.remove(&selector(texts[0]), 0);
        index.remove(&selector(texts[2]), 2);
        assert_eq!(found(&index), [1, 3]);
    }
}
