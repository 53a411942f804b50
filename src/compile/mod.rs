//! [`Model`] to [`Program`]: everything that can be known before a packet comes is settled here.
//!
//! ```text
//! model --members--> who has which addresses, labels and named ports (R-20, M-20)
//!   |   --order----> tiers and policies in their order (E-2..E-6)
//!   +--> chains: which policies govern a local endpoint, by kind and direction (E-1, E-10..E-28)
//!          +--> rules: one flat rule each, its selectors resolved to sets of members (section 3)
//! ```

mod addresses;
mod chains;
mod error;
mod intern;
mod members;
mod order;
mod rules;
mod settings;

use crate::model::Model;
use crate::program::Program;

pub use error::CompileError;

/// Compiles the model for the endpoints of a node, or for all workloads of the cluster.
///
/// The order of the model's lists does not matter: the same resources give the identical program.
pub fn compile(model: &Model, node: Option<&str>) -> Result<Program, CompileError> {
    let members = members::Members::of(model)?;
    let order = order::PolicyOrder::of(model)?;
    let mut builder = rules::RuleBuilder::new(&members);
    let mut warnings = Vec::new();
    let local = chains::Chains::new(model, &order, &mut builder, &mut warnings).endpoints(node)?;
    let settings = settings::settings(&model.settings)?;
    warnings.sort_unstable();
    warnings.dedup();
    Ok(builder.into_program(node, settings, local, warnings))
}
