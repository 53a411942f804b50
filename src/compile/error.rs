//! What a model can have wrong. Resources are validated before; this is the last line, and it speaks the same words.

/// A model that cannot be compiled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{resource}: {field}: {message}")]
pub struct CompileError {
    /// `Kind/namespace/name` or `Kind/name`.
    pub resource: String,
    /// The field.
    pub field: String,
    /// What was found and what was expected.
    pub message: String,
}

impl CompileError {
    pub(super) fn new(resource: &str, field: &str, message: impl Into<String>) -> Self {
        Self { resource: resource.to_owned(), field: field.to_owned(), message: message.into() }
    }

    /// A value that is none of the expected words.
    pub(super) fn unexpected(resource: &str, field: &str, found: &str, expected: &str) -> Self {
        Self::new(resource, field, format!("found `{found}`, expected {expected}"))
    }
}
