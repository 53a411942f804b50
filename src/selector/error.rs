//! What is wrong with a selector, and where.

use std::fmt;

/// A selector that cannot be parsed. `Display` prints the message, the line of the text and a caret under the place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct SelectorError {
    message: String,
    text: String,
    offset: usize,
}

impl SelectorError {
    pub(super) fn new(text: &str, offset: usize, message: impl Into<String>) -> Self {
        Self { message: message.into(), text: text.to_owned(), offset }
    }

    /// What was expected and what was found.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Where, in bytes from the start of the text.
    pub fn offset(&self) -> usize {
        self.offset
    }
}

impl fmt::Display for SelectorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (before, after) = self.text.split_at(self.offset);
        let start = before.rfind(['\n', '\r']).map_or(0, |at| at + 1);
        let rest = after.split(['\n', '\r']).next().unwrap_or_default();
        let column = before[start..].chars().count();
        write!(f, "{}\n  {}{rest}\n  {:column$}^", self.message, &before[start..], "")
    }
}
