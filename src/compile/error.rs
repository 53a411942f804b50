//! What a model can have wrong. Resources are validated before; this is the last line, and it speaks the same words.

use std::borrow::Cow;

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

/// Where in a resource something stands.
pub struct Place<'a> {
    resource: &'a str,
    field: Cow<'a, str>,
}

impl<'a> Place<'a> {
    pub fn new(resource: &'a str, field: impl Into<Cow<'a, str>>) -> Self {
        Self { resource, field: field.into() }
    }

    /// A field of this field.
    pub fn at(&self, field: &str) -> Self {
        Self { resource: self.resource, field: format!("{}.{field}", self.field).into() }
    }

    pub fn error(&self, message: impl Into<String>) -> CompileError {
        CompileError {
            resource: self.resource.to_owned(),
            field: self.field.clone().into_owned(),
            message: message.into(),
        }
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
