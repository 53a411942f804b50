//! The contract between the policy half and the packet half: what a [`Model`](crate::model::Model) compiles to.
//!
//! A [`Program`] holds, per local endpoint and direction, chains of tiers of flat rules; rule lists, address sets
//! and port sets are shared. It holds no selector, no label and no name that a packet would have to be compared
//! with: everything is resolved to addresses, ports and ids. Every decision is an [`OutcomeId`], whose meaning
//! ([`RuleOrigin`]) leads back to tier, policy and rule.
//!
//! The same resources in any order, and by any edits, give the identical `Program` (state, not history); [`Program`]'s `Display` is
//! its stable text.

mod alike;
mod contents;
mod sets;
mod text;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::flow::{Direction, EndpointId, Family, OutcomeId, id, number_address};

pub use alike::Alike;
pub use contents::{contents, rule_lists};
pub use sets::{AddressSet, PortMember, PortSet};

id! {
    /// A [`Chain`] of a [`Program`].
    ChainId
}
id! {
    /// A [`RuleList`] of a [`Program`].
    RuleListId
}
id! {
    /// An [`AddressSet`] of a [`Program`].
    AddressSetId
}
id! {
    /// A [`PortSet`] of a [`Program`].
    PortSetId
}

/// The compiled policy of one node, or of all workloads of a cluster. What an edit leaves as it was is shared with the
/// program from before.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    /// The node whose endpoints are enforced; `None` for the cluster view (all workloads, no host endpoint).
    pub node: Option<String>,
    /// Values that change verdicts.
    pub settings: Settings,
    /// Local endpoints, sorted by (kind, name): hosts first. Indexed by [`EndpointId`].
    pub endpoints: Arc<Vec<Arc<Endpoint>>>,
    /// Indexed by [`ChainId`]; equal chains are one.
    pub chains: Arc<Vec<Chain>>,
    /// Indexed by [`RuleListId`].
    pub rule_lists: Arc<Vec<Arc<RuleList>>>,
    /// Indexed by [`AddressSetId`]; equal sets are one.
    pub address_sets: Vec<Arc<AddressSet>>,
    /// Indexed by [`PortSetId`]; equal sets are one.
    pub port_sets: Vec<Arc<PortSet>>,
    /// Indexed by [`OutcomeId`]; begins with one entry per [`Reason`], in the order of [`Reason::ALL`],
    /// without tier, policy and rule.
    pub outcomes: Arc<Vec<Arc<RuleOrigin>>>,
    /// What only the compiler sees and a person should know although it is no error (an untracked policy on a `*`
    /// host endpoint, a host endpoint whose interface another one governs), sorted.
    pub warnings: Vec<String>,
}

impl Program {
    /// The meaning of a decision.
    pub fn outcome(&self, id: OutcomeId) -> &RuleOrigin {
        &self.outcomes[id.index()]
    }

    /// The endpoint with this id.
    pub fn endpoint(&self, id: EndpointId) -> &Endpoint {
        &self.endpoints[id.index()]
    }

    /// The chain with this id.
    pub fn chain(&self, id: ChainId) -> &Chain {
        &self.chains[id.index()]
    }
}

/// Values that change verdicts; Felix's name in brackets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What happens to an allowed packet from a workload to the host (`DefaultEndpointToHostAction`, E-50).
    pub endpoint_to_host: EndpointToHost,
    /// Drop INVALID packets in endpoint chains (`DisableConntrackInvalidCheck`, negated; E-20.2).
    pub invalid_check: bool,
    /// E-40, `FailsafeInboundHostPorts`; sorted, without duplicates.
    pub failsafe_inbound: Vec<Failsafe>,
    /// E-40, `FailsafeOutboundHostPorts`; sorted, without duplicates.
    pub failsafe_outbound: Vec<Failsafe>,
    /// UDP port denied from workloads, if any (`VXLANPort` unless `AllowVXLANPacketsFromWorkloads`, E-20.5).
    pub workload_vxlan_port: Option<u16>,
    /// Deny IP-in-IP from workloads (`AllowIPIPPacketsFromWorkloads`, negated; E-20.5).
    pub workload_ipip_denied: bool,
    /// What an unmarked end of FORWARD means where a stage had an endpoint (E-27).
    pub forward_unmarked: ForwardUnmarked,
    /// A `*` host endpoint leaves `lo` alone (E-47).
    pub exempt_loopback: bool,
}

impl Settings {
    /// What is done for a reason, where the reason alone tells, or a setting.
    pub const fn action(&self, reason: Reason) -> Option<Action> {
        match (reason, self.endpoint_to_host, self.forward_unmarked) {
            (Reason::EndpointToHost, EndpointToHost::Drop, _)
            | (Reason::ForwardEnd, _, ForwardUnmarked::Deny) => Some(Action::Deny),
            (Reason::EndpointToHost, EndpointToHost::Accept, _)
            | (Reason::ForwardEnd, _, ForwardUnmarked::Accept) => Some(Action::Allow),
            _ => reason.action(),
        }
    }
}

/// E-50.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointToHost {
    /// Deny.
    Drop,
    /// Allow, finally.
    Accept,
    /// Continue in the base INPUT chain.
    Return,
}

/// E-27.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardUnmarked {
    /// `continue`: the base chain decides.
    Return,
    /// `allow`.
    Accept,
    /// `deny`.
    Deny,
}

/// One failsafe port (E-41).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Failsafe {
    /// IP protocol number.
    pub protocol: u8,
    /// Remote side, if restricted; the entry then exists only in that family.
    pub net: Option<Net>,
    /// Destination port (source port for the return half in raw, E-43).
    pub port: u16,
}

/// An address prefix; host bits are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Net {
    /// IP version.
    pub family: Family,
    /// First address as a number.
    pub first: u128,
    /// Last address as a number.
    pub last: u128,
}

impl Net {
    /// Whether it is one address.
    pub fn is_single(&self) -> bool {
        self.first == self.last
    }

    /// Whether the address lies inside.
    pub fn contains(&self, family: Family, address: u128) -> bool {
        self.family == family && self.first <= address && address <= self.last
    }
}

impl fmt::Display for Net {
    /// As CIDR text, for example `10.65.0.2/32`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = if self.family == Family::V4 { 32 } else { 128 };
        let host_bits = 128 - (self.first ^ self.last).leading_zeros();
        write!(f, "{}/{}", number_address(self.family, self.first), width - host_bits)
    }
}

/// Host or workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EndpointKind {
    /// A `HostEndpoint`.
    Host,
    /// A `WorkloadEndpoint` or a Pod.
    Workload,
}

/// How an endpoint is tied to an interface (E-45, E-46).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attachment {
    /// By interface name.
    Name(String),
    /// A host endpoint with `interfaceName: "*"`.
    Any,
    /// A host endpoint without `interfaceName`: the interface that carries one of its addresses.
    Address,
    /// Not on this node (cluster view).
    Remote,
}

/// A local endpoint and its chains.
#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    /// `Kind/namespace/name` or `Kind/name`, as in answers.
    pub name: String,
    /// `metadata.name` alone: ties between host endpoints are broken by it (E-45).
    pub short_name: String,
    /// Host or workload.
    pub kind: EndpointKind,
    /// How its interface is found.
    pub attachment: Attachment,
    /// Its own addresses: `ipNetworks` or `expectedIPs`, sorted, without duplicates.
    pub addresses: Vec<IpAddr>,
    /// Workloads: the sources that its packets may have (`ipNetworks` and `allowSpoofedSourcePrefixes`, E-30),
    /// sorted, not merged.
    pub sources: Vec<Net>,
    /// normal policy, by direction; ends in profiles.
    pub normal: Directed<ChainId>,
    /// Host endpoints: forward policy, by direction.
    pub forward: Option<Directed<ChainId>>,
    /// Host endpoints with at least one untracked policy (never `*`, E-47).
    pub untracked: Option<Directed<ChainId>>,
    /// Host endpoints with at least one preDNAT policy: ingress only.
    pub prednat: Option<ChainId>,
}

/// One value for each direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Directed<T> {
    /// Towards the endpoint.
    pub ingress: T,
    /// From the endpoint.
    pub egress: T,
}

impl<T: Copy> Directed<T> {
    /// The value for this direction.
    pub const fn of(&self, direction: Direction) -> T {
        match direction {
            Direction::Ingress => self.ingress,
            Direction::Egress => self.egress,
        }
    }
}

/// Steps 6 to 9 of E-20 for one endpoint, kind and direction.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Chain {
    /// Tiers that have a policy here, in order (E-26).
    pub tiers: Vec<Tier>,
    /// What follows the last tier.
    pub end: ChainEnd,
}

/// One tier of a chain.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tier {
    /// Its name.
    pub name: String,
    /// The rules of its policies, in order; staged policies are left out (E-15).
    pub policies: Vec<RuleListId>,
    /// E-21, E-22, E-23.
    pub end: TierEnd,
    /// The meaning of reaching `end`.
    pub outcome: OutcomeId,
}

/// What the end of a tier does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TierEnd {
    /// E-21.
    Deny,
    /// E-21 with tier action Pass, or E-23: a passed step, `outcome` is shown in the trace.
    Pass,
    /// E-22: untracked and preDNAT fall through silently; nothing is shown in the trace.
    Fall,
}

/// What follows the last tier of a chain.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ChainEnd {
    /// normal: profiles in order, then deny (E-20.8) with [`Reason::NoProfileAllows`].
    Profiles(Vec<RuleListId>),
    /// forward without any tier in either direction: accept (E-20.7) with [`Reason::NoForwardPolicy`].
    Accept,
    /// Leave without a mark, with this meaning ([`Reason::NoRuleMatched`], [`Reason::ForwardOtherDirection`] or
    /// [`Reason::ForwardUnmarked`]).
    Unmarked(OutcomeId),
}

/// The rules of one policy or profile in one direction.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleList {
    /// `Kind/namespace/name` or `Kind/name`.
    pub policy: String,
    /// Its tier; empty for a profile.
    pub tier: String,
    /// Ingress or egress rules.
    pub direction: Direction,
    /// In order. A profile that does not exist is one criterion-free Deny with [`Reason::MissingProfile`].
    pub rules: Vec<Rule>,
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// M-50.
    Allow,
    /// M-51.
    Deny,
    /// M-52, M-54.
    Pass,
    /// M-53.
    Log,
}

impl Action {
    /// As written in a policy.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allow => "Allow",
            Self::Deny => "Deny",
            Self::Pass => "Pass",
            Self::Log => "Log",
        }
    }
}

/// One flat rule: all present criteria must hold (M-1).
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// What it does.
    pub action: Action,
    /// Its meaning.
    pub outcome: OutcomeId,
    /// Families for which the rule exists (M-10..M-14): `[v4, v6]`.
    pub families: [bool; 2],
    /// M-15: `protocol`.
    pub protocol: Option<u8>,
    /// M-15: `notProtocol`.
    pub not_protocol: Option<u8>,
    /// M-33: `icmp` with a type.
    pub icmp: Option<Icmp>,
    /// M-33: `notICMP` with a type.
    pub not_icmp: Option<Icmp>,
    /// Criteria on the packet's source (M-4).
    pub source: Side,
    /// Criteria on the packet's destination.
    pub destination: Side,
}

/// M-33. The protocol is a criterion of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Icmp {
    /// ICMP type.
    pub kind: u8,
    /// ICMP code, if given.
    pub code: Option<u8>,
}

/// Criteria on one side of a packet; absent ones impose nothing (M-2). There are many: a set or two stand where they are
/// asked for, and rules of a list share the ports that they name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Side {
    /// Sets that must each hold the address: `nets`, and the positive expression of M-21.
    pub in_sets: SmallVec<[AddressSetId; 4]>,
    /// Sets that must not hold the address: `notNets`, and `notSelector` on its own (M-24).
    pub not_in_sets: SmallVec<[AddressSetId; 4]>,
    /// `ports`: one of them (M-17).
    pub ports: Option<Arc<PortMatch>>,
    /// `notPorts`: none of them (M-18).
    pub not_ports: Option<Arc<PortMatch>>,
}

/// Numeric ranges and named-port sets. A packet without readable ports matches no range, and fails every
/// criterion (also a negated one) that has a range; it is in no set (M-19).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PortMatch {
    /// Inclusive, sorted, merged.
    pub ranges: Vec<(u16, u16)>,
    /// M-25: (address, protocol, port) sets.
    pub named: Vec<PortSetId>,
}

/// What an [`OutcomeId`] means.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RuleOrigin {
    /// Tier, if one is concerned.
    pub tier: Option<Arc<str>>,
    /// `Kind/namespace/name` or `Kind/name` of the policy or profile.
    pub policy: Option<Arc<str>>,
    /// Of the rules that it is one of, or the end of; none where the reason alone tells.
    pub direction: Option<Direction>,
    /// Counts from 0 within its direction.
    pub rule: Option<u32>,
    /// What was done; none where nothing was decided.
    pub action: Option<Action>,
    /// Why.
    pub reason: Reason,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident => $action:expr, $text:literal;)*) => {
        /// Why a step of an evaluation ended as it did. Every reason cites the rule of `docs/semantics.md`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Reason { $($(#[$doc])* $name,)* }

        impl Reason {
            /// All reasons, in the order of their outcome ids.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// One short phrase with the rule id.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// What was done for this reason, where the reason alone tells.
            pub const fn action(self) -> Option<Action> {
                match self { $(Self::$name => $action,)* }
            }

            /// The outcome that has this reason and neither tier, policy nor rule.
            pub fn outcome(self) -> OutcomeId {
                OutcomeId::new(self as usize)
            }
        }
    };
}

reasons! {
    /// A policy's rule allowed.
    RuleAllow => Some(Action::Allow), "rule (M-50)";
    /// A policy's rule denied.
    RuleDeny => Some(Action::Deny), "rule (M-51)";
    /// A policy's rule passed to the next tier.
    RulePass => Some(Action::Pass), "rule (M-52)";
    /// A policy's rule logged.
    RuleLog => Some(Action::Log), "rule (M-53)";
    /// A profile's rule; the action is the rule's.
    ProfileRule => None, "profile rule (M-54)";
    /// A listed profile does not exist.
    MissingProfile => Some(Action::Deny), "missing profile (R-29)";
    /// No profile allowed.
    NoProfileAllows => Some(Action::Deny), "no profile allows (E-25)";
    /// End of a tier that denies.
    EndOfTier => Some(Action::Deny), "end of tier (E-21)";
    /// End of a tier whose action is Pass.
    EndOfTierPass => Some(Action::Pass), "end of tier, action Pass (E-21)";
    /// End of a tier in which all policies are staged.
    EndOfTierStaged => Some(Action::Pass), "end of tier, all staged (E-23)";
    /// Untracked or preDNAT: nothing matched.
    NoRuleMatched => None, "no rule decided (E-22)";
    /// Forward: no applyOnForward policy at all.
    NoForwardPolicy => Some(Action::Allow), "no applyOnForward policy (E-52)";
    /// Forward: applyOnForward policy in the other direction only.
    ForwardOtherDirection => None, "no applyOnForward policy in this direction (E-27)";
    /// Forward: every tier was passed.
    ForwardUnmarked => None, "all tiers passed (E-28)";
    /// End of FORWARD without a mark, settled by `forwardUnmarked`; the action is the setting's.
    ForwardEnd => None, "unmarked end of FORWARD (E-27)";
    /// The connection is known.
    Established => Some(Action::Allow), "established or related (E-20.2)";
    /// conntrack could not place the packet.
    Invalid => Some(Action::Deny), "invalid (E-20.2)";
    /// mangle: the connection is known.
    MangleEstablished => None, "established or related (E-33)";
    /// mangle: conntrack could not place the packet.
    MangleInvalid => Some(Action::Deny), "invalid (E-34)";
    /// A failsafe port.
    Failsafe => Some(Action::Allow), "failsafe (E-40)";
    /// The return half of a failsafe port of the other direction (raw only).
    FailsafeReturn => Some(Action::Allow), "failsafe, return half (E-43)";
    /// Accepted before, in raw or mangle.
    AcceptMark => Some(Action::Allow), "accept mark (E-48)";
    /// A workload interface without a known workload.
    UnknownWorkload => Some(Action::Deny), "unknown workload interface (E-38)";
    /// The source is not an address of this workload.
    SpoofedSource => Some(Action::Deny), "source is not the workload's (E-30)";
    /// raw PREROUTING from a workload interface.
    WorkloadInRaw => None, "workload interface, no untracked policy (E-30)";
    /// `ICMPv6` neighbour discovery from a workload to the host.
    NeighbourDiscovery => Some(Action::Allow), "neighbour discovery (E-50)";
    /// Encapsulated traffic from a workload.
    Encapsulation => Some(Action::Deny), "encapsulation from a workload (E-20.5)";
    /// Workload to host, `DefaultEndpointToHostAction`; the action is the setting's.
    EndpointToHost => None, "endpoint to host action (E-50)";
    /// Host to a local workload.
    HostToWorkload => None, "host to local workload (E-36)";
    /// filter OUTPUT: DNATed, so judged in mangle POSTROUTING.
    DnatLater => None, "DNATed, judged in mangle POSTROUTING (E-37)";
    /// mangle POSTROUTING: not DNATed, so judged in filter OUTPUT.
    NotDnatted => None, "not DNATed, judged in filter OUTPUT (E-37)";
    /// mangle POSTROUTING: forwarded, so judged in filter FORWARD.
    Forwarded => None, "forwarded, judged in filter FORWARD (E-37)";
    /// raw: the host endpoint has no untracked policy, or it is the `*` one (E-47).
    NoUntrackedPolicy => None, "no untracked policy here (E-31)";
    /// mangle: the host endpoint has no preDNAT policy.
    NoPrednatPolicy => None, "no preDNAT policy here (E-33)";
    /// No endpoint has policy here.
    NoEndpoint => None, "no endpoint here (E-39)";
}

/// The outcomes every program begins with: one per [`Reason`].
pub fn reason_outcomes(settings: &Settings) -> Vec<RuleOrigin> {
    Reason::ALL
        .iter()
        .map(|&reason| RuleOrigin {
            tier: None,
            policy: None,
            direction: None,
            rule: None,
            action: settings.action(reason),
            reason,
        })
        .collect()
}
