//! Bytes to [`FiveTuple`](crate::flow::FiveTuple).
