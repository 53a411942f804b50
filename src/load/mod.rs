//! What `bench queue` sends through a host, and who replies: traffic with figures, no policy.
//!
//! ```text
//! Flow --frames--> bytes --source--> an interface          connections, exchange <--> server
//! ```
//!
//! Everything is bounded by a count and by time, and lives in the network namespace of the calling thread.

mod connections;
mod exchange;
mod frames;
mod server;
mod source;

pub use connections::{ConnectionPlan, Connections, connect_many};
pub use exchange::{Exchange, exchange};
pub use frames::{Flow, Link, udp_frame};
pub use server::{Answer, Server};
pub use source::Source;
