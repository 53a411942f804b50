//! [`Model`] to [`Program`]: everything that can be known before a packet comes is settled here.
//!
//! ```text
//! model --members--> who has which addresses, labels and named ports (R-20, M-20)
//!   |   --services-> the backends of services (M-31, M-32)
//!   |   --order----> tiers and policies in their order (E-2..E-6)
//!   |       +--selection--> which policies select which local endpoints, and for what (E-1, E-10..E-15)
//!   +--> chains: what a packet of a local endpoint meets, by list and direction (E-20..E-28)
//!          +--> rules: flat rules (section 3); expression: what they say of members (M-21..M-24),
//!                      nets: for which families they exist (M-10..M-14)
//! ```

mod addresses;
mod chains;
mod error;
mod expression;
mod index;
mod members;
mod nets;
mod order;
mod rules;
mod selection;
mod services;
mod settings;
mod warnings;

use std::collections::BTreeSet;

use crate::model::{Host, Model, Workload};
use crate::program::{Attachment, Endpoint, Program};

use chains::Chains;
use error::Place;
use index::LabelIndex;
use members::{Members, effective, is_present, profile_labels};
use rules::RuleBuilder;
use selection::{Selected, select};
use services::Services;

pub use error::CompileError;

/// Compiles the model for the endpoints of a node, or for all workloads of the cluster.
///
/// The order of the model's lists does not matter: the same resources give the identical program.
/// Errors name the resource, the field, what was found and what was expected.
pub fn compile(model: &Model, node: Option<&str>) -> Result<Program, CompileError> {
    check_names(model)?;
    let members = Members::of(model)?;
    let services = Services::of(model)?;
    let tiers = order::ordered_tiers(model)?;
    let local = Local::of(model, node);
    Place::new("limits", "endpoints").check_limit(local.count(), model.limits.endpoints)?;
    let selected = select(&tiers, &local.labels(model));
    let mut builder = RuleBuilder::new(&members, &services, &model.limits);
    let endpoints = local.compile(&mut Chains::new(model, &mut builder), &selected)?;
    let warnings = warnings::of(&endpoints, &selected);
    let settings = settings::settings(&model.settings)?;
    Ok(builder.into_program(node, settings, endpoints, warnings))
}

/// The endpoints that are enforced, in the program's order.
struct Local<'a> {
    node: Option<&'a str>,
    hosts: Vec<&'a Host>,
    workloads: Vec<&'a Workload>,
}

impl<'a> Local<'a> {
    /// Those of the node; without one all workloads.
    fn of(model: &'a Model, node: Option<&'a str>) -> Self {
        let mut hosts: Vec<_> = model.hosts.iter().filter(|host| Some(host.node.as_str()) == node).collect();
        hosts.sort_by(|a, b| a.name.cmp(&b.name));
        let is_local =
            |workload: &&Workload| is_present(workload) && node.is_none_or(|node| workload.node == node);
        let mut workloads: Vec<_> = model.workloads.iter().filter(is_local).collect();
        workloads.sort_by(|a, b| a.name.cmp(&b.name));
        Self { node, hosts, workloads }
    }

    fn count(&self) -> usize {
        self.hosts.len() + self.workloads.len()
    }

    /// R-20, numbered as the endpoints.
    fn labels(&self, model: &'a Model) -> LabelIndex<'a> {
        let labels_of = profile_labels(model);
        let hosts = self.hosts.iter().map(|host| effective(&host.labels, &host.profiles, &labels_of));
        let workloads = self.workloads.iter().map(|own| effective(&own.labels, &own.profiles, &labels_of));
        LabelIndex::of(hosts.chain(workloads))
    }

    fn compile(
        &self,
        chains: &mut Chains<'_, '_>,
        selected: &[Selected<'_>],
    ) -> Result<Vec<Endpoint>, CompileError> {
        let (of_hosts, of_workloads) = selected.split_at(self.hosts.len());
        let hosts = self.hosts.iter().zip(of_hosts);
        let mut endpoints: Vec<_> =
            hosts.map(|(host, selected)| chains.host(host, selected)).collect::<Result<_, _>>()?;
        for (workload, selected) in self.workloads.iter().zip(of_workloads) {
            let attachment = match self.node {
                Some(_) => Attachment::Name(workload.interface.clone()),
                None => Attachment::Remote,
            };
            endpoints.push(chains.workload(workload, attachment, selected)?);
        }
        Ok(endpoints)
    }
}

/// Two resources of one name cannot be told apart: neither by an order, nor in an answer.
fn check_names(model: &Model) -> Result<(), CompileError> {
    let workloads = model.workloads.iter().map(|workload| workload.name.clone());
    let hosts = model.hosts.iter().map(|host| format!("HostEndpoint/{}", host.name));
    let sets = model.network_sets.iter().map(|set| set.name.clone());
    let profiles = model.profiles.iter().map(|profile| format!("Profile/{}", profile.name));
    let tiers = model.tiers.iter().map(|tier| format!("Tier/{}", tier.name));
    let policies = model.policies.iter().map(order::key);
    let services = model.services.iter().map(services::key);
    let policies = policies.chain(services);
    let mut names: Vec<_> =
        workloads.chain(hosts).chain(sets).chain(profiles).chain(tiers).chain(policies).collect();
    names.sort_unstable();
    let mut seen = BTreeSet::new();
    match names.iter().find(|name| !seen.insert(name.as_str())) {
        None => Ok(()),
        Some(name) => Err(Place::new(name, "metadata.name").error("found twice, expected once")),
    }
}
