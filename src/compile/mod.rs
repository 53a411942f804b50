//! [`Model`] to [`Program`]: everything that can be known before a packet comes is settled here.
//!
//! ```text
//! model --members--> who has which addresses, labels and named ports (R-20, M-20)
//!   |   --services-> the backends of services (M-31, M-32)
//!   |   --order----> tiers and policies in their order (E-2..E-6)
//!   |       +--selection--> which policies select which local endpoints, and for what (E-1, E-10..E-15)
//!   +--> chains: what a packet of a local endpoint meets, by list and direction (E-20..E-28)
//!          +--> template: flat rules (section 3); expression: what they say of members (M-21..M-24),
//!          |              nets: for which families they exist (M-10..M-14)
//!          +--> rules: what they share gets numbers
//! ```
//!
//! A [`Compiler`] keeps what it has read and found between edits: `index` who has which labels, `sets` the members that
//! selectors mean, `template` the rule lists. An edit makes anew what it touches; then all parts that are in use get their
//! numbers in the order of their first use, so that a program tells nothing of what was compiled before it.

mod addresses;
mod chains;
mod compiled;
mod compiler;
mod error;
mod expression;
mod held;
mod holders;
mod index;
mod members;
mod nets;
mod order;
mod rules;
mod selection;
mod services;
mod sets;
mod settings;
mod shared;
mod template;
mod warnings;

use std::sync::Arc;

use crate::model::Model;
use crate::program::Program;

pub use compiler::Compiler;
pub use error::CompileError;

/// Compiles the model for the endpoints of a node, or for all workloads of the cluster.
///
/// The order of the model's lists does not matter: the same resources give the identical program.
/// Errors name the resource, the field, what was found and what was expected.
pub fn compile(model: &Model, node: Option<&str>) -> Result<Program, CompileError> {
    let mut compiler = Compiler::borrowing(model, node)?;
    let program = compiler.program()?;
    drop(compiler);
    Ok(Arc::unwrap_or_clone(program))
}
