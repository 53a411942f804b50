//! What a model can have wrong. Resources are validated before; this is the last line, and it speaks the same words.

/// A model that cannot be compiled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{resource}: {field}: {message}")]
pub struct CompileError {
    /// `Kind/namespace/name` or `Kind/name`; `settings` and `limits` for those.
    pub resource: String,
    /// The field, as a path from the resource, for example `spec.ingress[0].source.nets`.
    pub field: String,
    /// What was found and what was expected.
    pub message: String,
}

/// Where in a resource something stands. Everything that is read has one, so it is put into words only where it is wrong.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    resource: &'a str,
    within: Option<&'a Place<'a>>,
    field: &'a str,
    index: Option<usize>,
}

impl<'a> Place<'a> {
    pub fn new(resource: &'a str, field: &'a str) -> Self {
        Self { resource, within: None, field, index: None }
    }

    /// An element of a list.
    pub fn element(resource: &'a str, list: &'a str, index: usize) -> Self {
        Self { resource, within: None, field: list, index: Some(index) }
    }

    /// A field of this field.
    pub fn at<'b>(&'b self, field: &'b str) -> Place<'b> {
        Place { resource: self.resource, within: Some(self), field, index: None }
    }

    fn path(&self) -> String {
        let within = self.within.map_or_else(String::new, |within| within.path() + ".");
        let index = self.index.map_or_else(String::new, |index| format!("[{index}]"));
        within + self.field + &index
    }

    pub fn error(&self, message: impl Into<String>) -> CompileError {
        CompileError { resource: self.resource.to_owned(), field: self.path(), message: message.into() }
    }

    /// A value that is not what belongs here.
    pub fn unexpected(&self, found: &str, expected: &str) -> CompileError {
        self.error(format!("found `{found}`, expected {expected}"))
    }

    /// A size above its limit.
    pub fn check_limit(&self, found: usize, limit: usize) -> Result<(), CompileError> {
        if found <= limit {
            return Ok(());
        }
        Err(self.error(format!("found {found}, expected at most {limit}")))
    }
}
