//! What is wrong with a selector, and where.

use std::fmt;

/// What is printed of a long line on either side of the place.
const SHOWN: usize = 50;

/// A selector that cannot be parsed. `Display` prints the message, the line of the text (of a long one what is near
/// the place) and a caret under the place.
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
        let before: String = nearest(before.chars().rev()).into_iter().rev().collect();
        let after: String = nearest(after.chars()).into_iter().collect();
        // A tab stays a tab, so that the caret stands under its place however wide tabs are.
        let blank = before.replace(|c| c != '\t', " ");
        write!(f, "{}\n  {before}{after}\n  {blank}^", self.message)
    }
}

/// The characters on the same line, the nearest first; what could upset a terminal is replaced.
fn nearest(chars: impl Iterator<Item = char>) -> Vec<char> {
    let visible = |c: char| if c.is_control() && c != '\t' { char::REPLACEMENT_CHARACTER } else { c };
    let mut line = chars.take_while(|c| !matches!(c, '\n' | '\r')).map(visible);
    let mut near: Vec<char> = line.by_ref().take(SHOWN).collect();
    if line.next().is_some() {
        near.extend(['.'; 3]);
    }
    near
}
