//! What the orchestrator hands over: resources reduced to what the compiler needs, one JSON object.
//!
//! Nothing is inherited or resolved yet: selectors are text, profiles are names. Unknown fields are errors.

use std::collections::BTreeMap;

use serde::Deserialize;

/// Everything one compile needs.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Model {
    /// Workloads of the whole cluster: peers of rules, and, on their node, enforced.
    pub workloads: Vec<Workload>,
    /// Host endpoints of the whole cluster.
    pub hosts: Vec<Host>,
    /// Network sets, global and namespaced.
    pub network_sets: Vec<NetworkSet>,
    /// Profiles, the built-in ones included.
    pub profiles: Vec<Profile>,
    /// Tiers, the built-in ones included (E-3).
    pub tiers: Vec<Tier>,
    /// Policies of all kinds, in Calico form.
    pub policies: Vec<Policy>,
    /// Services that rules can mean.
    pub services: Vec<Service>,
    /// Values that change verdicts.
    pub settings: Settings,
    /// What a program may grow to.
    pub limits: Limits,
}

/// One resource of a [`Model`].
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    /// Of [`Model::workloads`].
    Workload(Workload),
    /// Of [`Model::hosts`].
    Host(Host),
    /// Of [`Model::network_sets`].
    NetworkSet(NetworkSet),
    /// Of [`Model::profiles`].
    Profile(Profile),
    /// Of [`Model::tiers`].
    Tier(Tier),
    /// Of [`Model::policies`].
    Policy(Policy),
    /// Of [`Model::services`].
    Service(Service),
}

/// What has become of one resource.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// It is there now, in the place of the one of its name, if there was one.
    Put(Box<Resource>),
    /// The one with this key is gone: `Kind/namespace/name` or `Kind/name`, as in messages.
    Remove(String),
}

/// Sizes of a program; a larger one is an error instead of a machine without memory.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Local endpoints.
    pub endpoints: usize,
    /// Rules of the policies and profiles that local endpoints have, each counted once.
    pub rules: usize,
    /// Ranges of all address sets and members of all named-port sets; equal sets count once.
    pub addresses: usize,
}

impl Default for Limits {
    /// Well above the largest known clusters (100,000 endpoints, some thousand policies); 8 to 32 bytes for each
    /// address.
    fn default() -> Self {
        Self { endpoints: 250_000, rules: 1_000_000, addresses: 50_000_000 }
    }
}

/// A workload: a `WorkloadEndpoint` or a Pod (R-21..R-23).
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    /// `WorkloadEndpoint/namespace/name` or `Pod/namespace/name`.
    pub name: String,
    /// Node it runs on.
    pub node: String,
    /// Its interface on that node; empty: the workload counts as absent (V-68).
    pub interface: String,
    /// Addresses, host-length prefixes (`10.65.0.2/32`); none: the workload counts as absent.
    pub networks: Vec<String>,
    /// E-30.
    #[serde(default)]
    pub spoofed_prefixes: Vec<String>,
    /// Own labels, those of R-21 included, those of R-22 removed.
    pub labels: BTreeMap<String, String>,
    /// Profile names in order.
    pub profiles: Vec<String>,
    /// Named ports.
    #[serde(default)]
    pub ports: Vec<NamedPort>,
}

/// A `HostEndpoint`.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// `metadata.name`.
    pub name: String,
    /// Its node.
    pub node: String,
    /// Exact name, `*`, or empty.
    #[serde(default)]
    pub interface: String,
    /// `expectedIPs`.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// Own labels.
    pub labels: BTreeMap<String, String>,
    /// Profile names in order.
    #[serde(default)]
    pub profiles: Vec<String>,
    /// Named ports.
    #[serde(default)]
    pub ports: Vec<NamedPort>,
}

/// A named port of an endpoint (M-25); the protocol is a number (M-28).
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct NamedPort {
    /// Its name.
    pub name: String,
    /// IP protocol number.
    pub protocol: u8,
    /// 1..65535.
    pub port: u16,
}

/// A `NetworkSet` or `GlobalNetworkSet`.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct NetworkSet {
    /// `NetworkSet/namespace/name` or `GlobalNetworkSet/name`.
    pub name: String,
    /// Own labels, the namespace label of R-26 included.
    pub labels: BTreeMap<String, String>,
    /// `kns.<namespace>` for a namespaced one.
    #[serde(default)]
    pub profiles: Vec<String>,
    /// CIDRs or bare addresses; host bits may be set.
    pub nets: Vec<String>,
}

/// A service with the backends of all its `EndpointSlice`s (M-31, M-32).
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// All backends.
    pub addresses: Vec<String>,
    /// Where backends listen: address, IP protocol number, port.
    pub ports: Vec<(String, u8, u16)>,
}

/// A `Profile`.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// `metadata.name`.
    pub name: String,
    /// `labelsToApply`.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Ingress rules.
    #[serde(default)]
    pub ingress: Vec<Rule>,
    /// Egress rules.
    #[serde(default)]
    pub egress: Vec<Rule>,
}

/// A `Tier`; order and action are filled in (E-2).
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Tier {
    /// `metadata.name`.
    pub name: String,
    /// Lower runs first.
    pub order: f64,
    /// `defaultAction: Pass` instead of Deny.
    pub pass: bool,
}

/// A policy of any kind, in Calico form; selectors are text.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// As in answers: `NetworkPolicy`, `GlobalNetworkPolicy`, `KubernetesNetworkPolicy`, ...
    pub kind: String,
    /// Empty for a global policy.
    #[serde(default)]
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// Tier name.
    pub tier: String,
    /// Absent: last (E-5).
    #[serde(default)]
    pub order: Option<f64>,
    /// S-20: empty selects all.
    #[serde(default)]
    pub selector: String,
    /// S-20: empty is no constraint.
    #[serde(default)]
    pub namespace_selector: String,
    /// S-20: empty is no constraint.
    #[serde(default)]
    pub service_account_selector: String,
    /// Governs ingress (E-12..E-14, already inferred).
    pub applies_ingress: bool,
    /// Governs egress.
    pub applies_egress: bool,
    /// Ingress rules.
    #[serde(default)]
    pub ingress: Vec<Rule>,
    /// Egress rules.
    #[serde(default)]
    pub egress: Vec<Rule>,
    /// E-10.
    #[serde(default)]
    pub do_not_track: bool,
    /// E-10.
    #[serde(default)]
    pub pre_dnat: bool,
    /// E-10.
    #[serde(default)]
    pub apply_on_forward: bool,
    /// E-15.
    #[serde(default)]
    pub staged: bool,
}

/// One rule.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Rule {
    /// `Allow`, `Deny`, `Pass` or `Log`.
    pub action: String,
    /// 4, 6 or absent.
    pub ip_version: Option<u8>,
    /// IP protocol number.
    pub protocol: Option<u8>,
    /// IP protocol number.
    pub not_protocol: Option<u8>,
    /// M-33; present without a type imposes nothing.
    pub icmp: Option<Icmp>,
    /// M-33.
    pub not_icmp: Option<Icmp>,
    /// Criteria on the source.
    pub source: Entity,
    /// Criteria on the destination.
    pub destination: Entity,
}

/// M-33.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Icmp {
    /// ICMP type.
    #[serde(rename = "type")]
    pub kind: Option<u8>,
    /// ICMP code.
    pub code: Option<u8>,
}

/// An `EntityRule`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Entity {
    /// M-16.
    pub nets: Vec<String>,
    /// M-16.
    pub not_nets: Vec<String>,
    /// M-21.
    pub selector: String,
    /// M-24.
    pub not_selector: String,
    /// M-21, M-22.
    pub namespace_selector: String,
    /// Numeric ranges, inclusive.
    pub ports: Vec<(u16, u16)>,
    /// Port names.
    pub named_ports: Vec<String>,
    /// Numeric ranges, inclusive.
    pub not_ports: Vec<(u16, u16)>,
    /// Port names.
    pub not_named_ports: Vec<String>,
    /// M-30.
    pub service_accounts: Option<ServiceAccounts>,
    /// M-31, M-32.
    pub service: Option<ServiceName>,
}

/// A service that a rule means; one that does not exist has no backends.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct ServiceName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// M-30.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct ServiceAccounts {
    /// Any of these; empty: no constraint.
    pub names: Vec<String>,
    /// Empty: no constraint.
    pub selector: String,
}

/// Values that change verdicts ([`crate::program::Settings`]).
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// `Drop`, `Accept` or `Return`.
    pub endpoint_to_host: String,
    /// Drop INVALID packets.
    pub invalid_check: bool,
    /// E-40.
    pub failsafe_inbound: Vec<Failsafe>,
    /// E-40.
    pub failsafe_outbound: Vec<Failsafe>,
    /// E-20.5.
    pub workload_vxlan_port: Option<u16>,
    /// E-20.5.
    pub workload_ipip_denied: bool,
    /// `return`, `accept` or `deny`.
    pub forward_unmarked: String,
    /// E-47.
    pub exempt_loopback: bool,
}

impl Default for Settings {
    /// Felix's defaults, without failsafes: the orchestrator states them (E-40).
    fn default() -> Self {
        Self {
            endpoint_to_host: "Drop".into(),
            invalid_check: true,
            failsafe_inbound: Vec::new(),
            failsafe_outbound: Vec::new(),
            workload_vxlan_port: Some(4789),
            workload_ipip_denied: true,
            forward_unmarked: "return".into(),
            exempt_loopback: false,
        }
    }
}

/// E-41.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Failsafe {
    /// IP protocol number.
    pub protocol: u8,
    /// CIDR of the remote side.
    #[serde(default)]
    pub net: Option<String>,
    /// 1..65535.
    pub port: u16,
}

/// What the host looks like now: interfaces and their addresses (interfaces live outside of policy).
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct HostFacts {
    /// Interface name to addresses.
    pub interfaces: BTreeMap<String, Vec<std::net::IpAddr>>,
    /// Names with these prefixes are workload interfaces (`InterfacePrefix`).
    pub workload_prefixes: Vec<String>,
}
