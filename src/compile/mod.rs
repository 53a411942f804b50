//! Model to [`Program`](crate::program::Program).
