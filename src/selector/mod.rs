//! Label selectors: parser, evaluation and canonical text (semantics section 2).
//!
//! ```
//! use labelgate::selector::Selector;
//! use std::collections::BTreeMap;
//!
//! let selector = Selector::parse("role == 'edge' && !has(drained)")?;
//! let labels = BTreeMap::from([("role".to_owned(), "edge".to_owned())]);
//! assert!(selector.matches(&labels));
//! assert_eq!(selector.canonical(), r#"(role == "edge" && !has(drained))"#);
//! # Ok::<(), labelgate::selector::SelectorError>(())
//! ```

#![deny(
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

mod canonical;
mod error;
mod lexer;
mod parser;

use std::collections::BTreeSet;

use crate::labels::Labels;

pub use error::SelectorError;

/// A parsed selector.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Selector(Node);

/// The tree. Groups have at least two members; sets are sorted and free of duplicates; `Not` never holds `Not`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Node {
    All,
    Global,
    Has(String),
    Compare(String, Comparison, String),
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Not(Box<Node>),
    And(Vec<Node>),
    Or(Vec<Node>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Comparison {
    Equal,
    NotEqual,
    Contains,
    StartsWith,
    EndsWith,
}

impl Comparison {
    /// S-8, S-9: byte-exact; a missing label satisfies only `!=`.
    fn holds(self, label: Option<&str>, wanted: &str) -> bool {
        match (self, label) {
            (Self::NotEqual, label) => label != Some(wanted),
            (_, None) => false,
            (Self::Equal, Some(label)) => label == wanted,
            (Self::Contains, Some(label)) => label.contains(wanted),
            (Self::StartsWith, Some(label)) => label.starts_with(wanted),
            (Self::EndsWith, Some(label)) => label.ends_with(wanted),
        }
    }
}

impl Selector {
    /// Parses a selector; blank text is `all()` (S-12). Time and memory are linear in the text (but for the sorting of
    /// sets), the stack is bounded, and every text gets an answer.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        parser::parse(text).map(Self)
    }

    /// Whether the labels satisfy the selector (S-8..S-11).
    pub fn matches<L: Labels + ?Sized>(&self, labels: &L) -> bool {
        self.0.matches(labels)
    }

    /// The canonical text (S-13). That of a parsed selector parses to an equal one.
    pub fn canonical(&self) -> String {
        canonical::text(&self.0)
    }

    /// A stable id: `s:` and the 128-bit FNV-1a hash of the canonical text in hexadecimal (S-14).
    pub fn id(&self) -> String {
        canonical::id(&self.canonical())
    }

    /// The same selector over labels whose names all carry this prefix (M-21).
    #[must_use]
    pub fn prefixed(&self, prefix: &str) -> Self {
        Self(self.0.map(&|leaf| match leaf {
            Node::Has(key) => Node::Has(format!("{prefix}{key}")),
            Node::Compare(key, comparison, value) => {
                Node::Compare(format!("{prefix}{key}"), *comparison, value.clone())
            }
            Node::In(key, values) => Node::In(format!("{prefix}{key}"), values.clone()),
            Node::NotIn(key, values) => Node::NotIn(format!("{prefix}{key}"), values.clone()),
            other => other.clone(),
        }))
    }

    /// The same selector with `all()` and `global()` replaced, on the tree (M-22).
    #[must_use]
    pub fn with_all_and_global(&self, all: &Self, global: &Self) -> Self {
        Self(self.0.map(&|leaf| match leaf {
            Node::All => all.0.clone(),
            Node::Global => global.0.clone(),
            other => other.clone(),
        }))
    }

    /// Label values that everything it matches has; empty where nothing is certain. Whoever keeps things by label
    /// finds the candidates for a match by them.
    pub fn required_labels(&self) -> Vec<(&str, &str)> {
        let mut found = Vec::new();
        self.0.required(&mut found);
        found
    }

    /// `all()`.
    pub fn all() -> Self {
        Self(Node::All)
    }

    /// `has(key)`.
    pub fn has(key: &str) -> Self {
        Self(Node::Has(key.to_owned()))
    }

    /// `key == "value"`.
    pub fn equals(key: &str, value: &str) -> Self {
        Self(Node::Compare(key.to_owned(), Comparison::Equal, value.to_owned()))
    }

    /// `key in {values}`.
    pub fn one_of(key: &str, values: impl IntoIterator<Item = String>) -> Self {
        let sorted: BTreeSet<String> = values.into_iter().collect();
        Self(Node::In(key.to_owned(), sorted.into_iter().collect()))
    }

    /// All of these; `all()` where there are none, the selector itself where there is one.
    pub fn and(selectors: Vec<Self>) -> Self {
        Self(group(selectors.into_iter().map(|selector| selector.0).collect(), Node::And))
    }
}

impl std::ops::Not for Selector {
    type Output = Self;

    fn not(self) -> Self {
        Self(negate(self.0))
    }
}

/// A group, or its only member.
fn group(mut members: Vec<Node>, make: fn(Vec<Node>) -> Node) -> Node {
    match members.len() {
        0 => Node::All,
        1 => members.remove(0),
        _ => make(members),
    }
}

/// S-2: negations fold, also through parentheses: `!(!has(a))` would else be written `!!has(a)` (S-13), which reads
/// as `has(a)`, and one selector would have two ids.
fn negate(node: Node) -> Node {
    match node {
        Node::Not(inner) => *inner,
        other => Node::Not(Box::new(other)),
    }
}

impl Node {
    fn matches<L: Labels + ?Sized>(&self, labels: &L) -> bool {
        let is_in = |key: &str, values: &[String]| {
            let value = labels.get(key);
            value.is_some_and(|value| values.binary_search_by(|member| member.as_str().cmp(value)).is_ok())
        };
        match self {
            Self::All | Self::Global => true,
            Self::Has(key) => labels.get(key).is_some(),
            Self::Compare(key, comparison, value) => comparison.holds(labels.get(key), value),
            Self::In(key, values) => is_in(key, values),
            Self::NotIn(key, values) => !is_in(key, values),
            Self::Not(inner) => !inner.matches(labels),
            Self::And(members) => members.iter().all(|member| member.matches(labels)),
            Self::Or(members) => members.iter().any(|member| member.matches(labels)),
        }
    }

    /// The tree with every leaf replaced; negations fold anew.
    fn map(&self, leaf: &impl Fn(&Self) -> Self) -> Self {
        match self {
            Self::Not(inner) => negate(inner.map(leaf)),
            Self::And(members) => Self::And(members.iter().map(|member| member.map(leaf)).collect()),
            Self::Or(members) => Self::Or(members.iter().map(|member| member.map(leaf)).collect()),
            other => leaf(other),
        }
    }

    fn required<'a>(&'a self, found: &mut Vec<(&'a str, &'a str)>) {
        match self {
            Self::Compare(key, Comparison::Equal, value) => found.push((key, value)),
            Self::In(key, values) => {
                if let [value] = values.as_slice() {
                    found.push((key, value));
                }
            }
            Self::And(members) => members.iter().for_each(|member| member.required(found)),
            _ => {}
        }
    }
}
