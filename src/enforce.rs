//! The packet loop.
