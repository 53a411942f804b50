//! [`Program`](crate::program::Program) to decisions.
