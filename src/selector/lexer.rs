//! Reading a selector left to right: blanks, names, strings, and what was found when something else was expected.

use super::error::SelectorError;

/// S-4: the longest label name.
const LONGEST_NAME: usize = 512;

/// S-4: what a label name is made of.
fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '/' | '-')
}

/// A place in the text.
#[derive(Clone, Copy)]
pub struct Lexer<'a> {
    text: &'a str,
    offset: usize,
}

impl<'a> Lexer<'a> {
    pub fn new(text: &'a str) -> Self {
        Self { text, offset: 0 }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.offset..]
    }

    pub fn is_at_end(&self) -> bool {
        self.rest().is_empty()
    }

    /// S-3: blanks are spaces and tabs only.
    pub fn skip_blanks(&mut self) {
        self.offset = self.text.len() - self.rest().trim_start_matches([' ', '\t']).len();
    }

    /// Takes this text if it comes next.
    pub fn take(&mut self, wanted: &str) -> bool {
        let found = self.rest().starts_with(wanted);
        if found {
            self.offset += wanted.len();
        }
        found
    }

    /// Takes name characters; empty where none come next.
    pub fn word(&mut self) -> &'a str {
        let rest = self.rest();
        let word = &rest[..rest.find(|c| !is_name_char(c)).unwrap_or(rest.len())];
        self.offset += word.len();
        word
    }

    /// A label name (S-4).
    pub fn name(&mut self, expected: &str) -> Result<&'a str, SelectorError> {
        let start = self.offset;
        let name = self.word();
        if name.is_empty() {
            return Err(self.expected(expected));
        }
        if name.len() > LONGEST_NAME {
            let length = name.len();
            let message =
                format!("label name too long: found {length} characters, expected at most {LONGEST_NAME}");
            return Err(SelectorError::new(self.text, start, message));
        }
        Ok(name)
    }

    /// A quoted string (S-6); `None` where no quote comes next.
    pub fn string(&mut self) -> Result<Option<&'a str>, SelectorError> {
        let Some(quote) = self.rest().chars().next().filter(|c| matches!(c, '"' | '\'')) else {
            return Ok(None);
        };
        let inside = &self.rest()[1..];
        match inside.find(quote) {
            Some(end) => {
                self.offset += end + 2;
                Ok(Some(&inside[..end]))
            }
            None => Err(self.error(format!("unterminated string: expected a closing {quote}"))),
        }
    }

    /// An error here: what was expected, and what comes next.
    pub fn expected(&self, expected: &str) -> SelectorError {
        self.error(format!("expected {expected}, found {}", self.found()))
    }

    pub fn error(&self, message: impl Into<String>) -> SelectorError {
        SelectorError::new(self.text, self.offset, message)
    }

    /// What comes next, in words.
    fn found(&self) -> String {
        let mut ahead = *self;
        let word = ahead.word();
        match self.rest().chars().next() {
            None => "the end of the selector".to_owned(),
            Some(_) if !word.is_empty() && word.len() <= 40 => format!("`{word}`"),
            Some(_) if !word.is_empty() => format!("`{}...`", &word[..40]),
            Some('\n' | '\r') => "a line break (only spaces and tabs may separate words)".to_owned(),
            Some(quote @ ('"' | '\'')) => format!("a string in {quote}"),
            Some(other) => format!("`{other}`"),
        }
    }
}
