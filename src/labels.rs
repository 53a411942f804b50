//! Label sets of endpoints, and how they inherit from profiles.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};

/// Something that has labels.
pub trait Labels {
    /// The value of a label, if it is present; an empty value is present (S-10).
    fn get(&self, key: &str) -> Option<&str>;
}

impl Labels for BTreeMap<String, String> {
    fn get(&self, key: &str) -> Option<&str> {
        self.get(key).map(String::as_str)
    }
}

/// An endpoint's effective labels: its own, then those of each profile that it lists, in list order; the first
/// source that has the key wins.
#[derive(Clone, Debug)]
pub struct InheritedLabels<'a> {
    sources: Vec<&'a BTreeMap<String, String>>,
}

impl<'a> InheritedLabels<'a> {
    /// Own labels before those of the profiles, in their order.
    pub fn new(
        own: &'a BTreeMap<String, String>,
        profiles: impl IntoIterator<Item = &'a BTreeMap<String, String>>,
    ) -> Self {
        Self { sources: std::iter::once(own).chain(profiles).collect() }
    }

    fn parts(&self) -> (&'a BTreeMap<String, String>, &[&'a BTreeMap<String, String>]) {
        (self.sources[0], &self.sources[1..])
    }

    /// The labels that count, one value for each key.
    pub fn effective(&self) -> BTreeMap<&'a str, &'a str> {
        let later_first = self.sources.iter().rev();
        later_first
            .flat_map(|labels| labels.iter())
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect()
    }
}

/// The same own labels, and the same profiles: not others with the same labels.
impl PartialEq for InheritedLabels<'_> {
    fn eq(&self, other: &Self) -> bool {
        let (own, profiles) = self.parts();
        let (other_own, other_profiles) = other.parts();
        profiles.len() == other_profiles.len()
            && profiles.iter().zip(other_profiles).all(|(a, b)| std::ptr::eq(*a, *b))
            && own == other_own
    }
}

impl Eq for InheritedLabels<'_> {}

impl Hash for InheritedLabels<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let (own, profiles) = self.parts();
        own.hash(state);
        for &profile in profiles {
            std::ptr::hash(profile, state);
        }
    }
}

impl Labels for InheritedLabels<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.sources.iter().find_map(|labels| labels.get(key)).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    /// own labels win, then the first profile that has the key.
    #[test]
    fn the_first_source_wins() {
        let own = labels(&[("a", "own"), ("empty", "")]);
        let first = labels(&[("a", "first"), ("b", "first"), ("empty", "first")]);
        let second = labels(&[("b", "second"), ("c", "second")]);
        let inherited = InheritedLabels::new(&own, [&first, &second]);
        let got = ["a", "b", "c", "d", "empty"].map(|key| inherited.get(key));
        assert_eq!(got, [Some("own"), Some("first"), Some("second"), None, Some("")]);
        let effective: Vec<_> = inherited.effective().into_iter().collect();
        assert_eq!(effective, [("a", "own"), ("b", "first"), ("c", "second"), ("empty", "")]);
    }
}
