//! Resources that the compiler keeps, or that somebody keeps for it: as small as a pointer, for there are many.

use std::borrow::Cow;
use std::ops::Deref;

/// A resource.
pub enum Held<'m, T> {
    Lent(&'m T),
    Own(Box<T>),
}

impl<T> Deref for Held<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        match self {
            Self::Lent(resource) => resource,
            Self::Own(resource) => resource,
        }
    }
}

impl<'m, T> Held<'m, T> {
    pub fn own(resource: T) -> Self {
        Self::Own(Box::new(resource))
    }

    /// Part of its text, which is not copied if it is lent.
    pub fn text(&self, of: impl FnOnce(&T) -> &str) -> Cow<'m, str> {
        match self {
            Self::Lent(resource) => Cow::Borrowed(of(resource)),
            Self::Own(resource) => Cow::Owned(of(resource).to_owned()),
        }
    }
}
