//! labelgate's core: compiles label policy into a decision table and drives `NFQUEUE` with it.
//!
//! ```text
//!  slow path, on every change                   fast path, per packet
//!  model --compile--> Program                   nfqueue: message --> payload
//!    Program --table--> DecisionTable           wire:    payload --> FiveTuple
//!                          |                    table:   FlowKey --> Decision
//!                          +== swapped in ==>   nfqueue: Decision --> verdict and mark, batched
//! ```
//!
//! Values in, values out: no YAML, no Kubernetes, no process calls; system calls only in `nfqueue::socket`, for the memory
//! of tables in `table::pages` and, for frames that a benchmark sends, in `load`.

pub mod capture;
pub mod compare;
pub mod compile;
pub mod conntrack;
#[cfg(target_os = "linux")]
pub mod enforce;
pub mod flow;
pub mod labels;
#[cfg(target_os = "linux")]
pub mod load;
pub mod model;
pub mod netlink;
#[cfg(target_os = "linux")]
pub mod nfqueue;
pub mod program;
#[cfg(feature = "python")]
mod python;
pub mod selector;
pub mod table;
pub mod wire;
pub mod workload;
