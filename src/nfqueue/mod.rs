//! The `NFQUEUE` protocol (`nfnetlink_queue`): packets out of the kernel, verdicts into it. Knows nothing of policy.
//!
//! ```text
//! kernel --socket: recvmmsg--> datagrams --message--> QueuedPacket --(caller)--> Reply
//! kernel <--socket: one send-- bytes <--message-- runs of equal replies <--queue--+
//! ```
//!
//! `message` is pure, [`Queue`] decides what is sent in which order, `socket` holds every system call.

#[cfg(test)]
pub mod fake_kernel;
pub mod message;
mod queue;
mod socket;
#[cfg(test)]
mod tests;

pub use message::{KernelVerdict, QueueOptions, QueuedPacket, Reply};
pub use queue::{Anomalies, Grant, Judge, Queue};
pub use socket::{
    BATCH, Channel, IDLE_MILLISECONDS, Inbox, Place, Poller, ReceiveBuffer, Received, Socket, Wake,
    block_signals, interface_name, thread_id,
};
