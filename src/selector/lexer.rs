//! Reading a selector left to right: blanks, names, strings, and what was found when something else was expected.

use super::error::SelectorError;

/// S-4: the longest label name.
const LONGEST_NAME: usize = 512;

/// What a message repeats of a long word or string.
const LONGEST_FOUND: usize = 40;

/// S-4: what a label name is made of.
fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '/' | '-')
}

/// A place in the text.
#[derive(Clone, Copy)]
pub struct Lexer<'a> {
    text: &'a str,
    rest: &'a str,
}

impl<'a> Lexer<'a> {
    pub fn new(text: &'a str) -> Self {
        Self { text, rest: text }
    }

    pub fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// S-3: blanks are spaces and tabs only.
    pub fn skip_blanks(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t']);
    }

    /// Takes this text if it comes next.
    pub fn take(&mut self, wanted: &str) -> bool {
        let after = self.rest.strip_prefix(wanted);
        self.rest = after.unwrap_or(self.rest);
        after.is_some()
    }

    /// Takes name characters; empty where none come next.
    pub fn word(&mut self) -> &'a str {
        let after = self.rest.trim_start_matches(is_name_char);
        let (word, after) = self.rest.split_at(self.rest.len() - after.len());
        self.rest = after;
        word
    }

    /// A label name (S-4).
    pub fn name(&mut self, expected: &str) -> Result<&'a str, SelectorError> {
        let start = *self;
        let name = self.word();
        if name.is_empty() {
            return Err(self.expected(expected));
        }
        if name.len() > LONGEST_NAME {
            let length = name.len();
            return Err(start.error(format!(
                "label name too long: found {length} characters, expected at most {LONGEST_NAME}"
            )));
        }
        Ok(name)
    }

    /// A quoted string (S-6); `None` where no quote comes next.
    pub fn string(&mut self) -> Result<Option<&'a str>, SelectorError> {
        for quote in ['"', '\''] {
            let Some(inside) = self.rest.strip_prefix(quote) else { continue };
            let Some((string, after)) = inside.split_once(quote) else {
                return Err(self.error(format!("unterminated string: expected a closing `{quote}`")));
            };
            self.rest = after;
            return Ok(Some(string));
        }
        Ok(None)
    }

    /// An error here: what was expected, and what comes next.
    pub fn expected(&self, expected: &str) -> SelectorError {
        self.error(format!("expected {expected}, found {}", self.found()))
    }

    pub fn error(&self, message: impl Into<String>) -> SelectorError {
        SelectorError::new(self.text, self.text.len() - self.rest.len(), message)
    }

    /// What comes next, in words.
    fn found(&self) -> String {
        let mut ahead = *self;
        let word = ahead.word();
        match self.rest.chars().next() {
            None => "the end of the selector".to_owned(),
            Some(_) if !word.is_empty() => format!("`{}`", shortened(word)),
            Some('\n' | '\r') => "a line break (only spaces and tabs may separate words)".to_owned(),
            Some(quote @ ('"' | '\'')) => match ahead.string() {
                Ok(Some(string)) => format!("the string {quote}{}{quote}", shortened(string)),
                _ => "an unterminated string".to_owned(),
            },
            Some(other) if other.is_ascii_graphic() => format!("`{other}`"),
            // Others look like these, like blanks, or like nothing.
            Some(other) if other.is_whitespace() || other.is_control() => code_point(other),
            Some(other) => format!("`{other}` ({})", code_point(other)),
        }
    }
}

fn code_point(c: char) -> String {
    format!("U+{:04X}", u32::from(c))
}

/// One line of text for a message.
fn shortened(text: &str) -> String {
    let mut chars = text.chars();
    let start: String =
        chars.by_ref().take(LONGEST_FOUND).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if chars.next().is_some() { start + "..." } else { start }
}
