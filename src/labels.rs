//! Label sets of endpoints, and how they inherit from profiles.

use std::collections::BTreeMap;

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
pub fn effective<'a>(
    own: &'a BTreeMap<String, String>,
    profiles: impl IntoIterator<Item = &'a BTreeMap<String, String>>,
) -> BTreeMap<String, String> {
    let mut labels = own.clone();
    for (key, value) in profiles.into_iter().flatten() {
        if !labels.contains_key(key) {
            labels.insert(key.clone(), value.clone());
        }
    }
    labels
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
        let effective = effective(&own, [&first, &second]);
        let effective: Vec<_> = effective.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(effective, [("a", "own"), ("b", "first"), ("c", "second"), ("empty", "")]);
    }
}
