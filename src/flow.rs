//! The words of the packet path: what the bytes of a packet tell ([`FiveTuple`]), where and in which state it
//! was seen ([`FlowKey`]), and what a hook's evaluation can end in ([`Verdict`]).
//!
//! Everything here is `Copy` and allocates nothing. The meaning of each word is that of `docs/semantics.md`.

use std::fmt;
use std::net::IpAddr;

/// IP version of a packet or a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Family {
    /// IPv4.
    V4 = 0,
    /// IPv6.
    V6 = 1,
}

/// Where in netfilter a packet is seen. The discriminant is part of the queue number: keep the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Hook {
    /// raw PREROUTING: before conntrack; untracked ingress policy.
    RawPrerouting = 0,
    /// raw OUTPUT: before conntrack; untracked egress policy.
    RawOutput = 1,
    /// mangle PREROUTING: before DNAT; preDNAT policy.
    ManglePrerouting = 2,
    /// filter INPUT: to the host.
    FilterInput = 3,
    /// filter FORWARD: through the host.
    FilterForward = 4,
    /// filter OUTPUT: from the host.
    FilterOutput = 5,
    /// mangle POSTROUTING: locally made flows that nat OUTPUT has DNATed (E-37).
    ManglePostrouting = 6,
}

impl Hook {
    /// All hooks, in the order a packet can meet them.
    pub const ALL: [Self; 7] = [
        Self::RawPrerouting,
        Self::RawOutput,
        Self::ManglePrerouting,
        Self::FilterInput,
        Self::FilterForward,
        Self::FilterOutput,
        Self::ManglePostrouting,
    ];

    /// The word used in JSON lines and configuration keys, for example `raw-prerouting`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RawPrerouting => "raw-prerouting",
            Self::RawOutput => "raw-output",
            Self::ManglePrerouting => "mangle-prerouting",
            Self::FilterInput => "filter-input",
            Self::FilterForward => "filter-forward",
            Self::FilterOutput => "filter-output",
            Self::ManglePostrouting => "mangle-postrouting",
        }
    }

    /// The hook with this [`name`](Self::name).
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|hook| hook.name() == name)
    }
}

/// Ingress or Egress, seen from the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Direction {
    /// Towards the endpoint.
    Ingress = 0,
    /// From the endpoint.
    Egress = 1,
}

impl Direction {
    /// `Ingress` or `Egress`, as written in a policy's `types`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "Ingress",
            Self::Egress => "Egress",
        }
    }
}

/// What a hook's evaluation ends in (semantics section 0). There is no default: no verdict by accident.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Verdict {
    /// Terminal at this hook.
    Deny = 0,
    /// An explicit accept of this hook.
    Allow = 1,
    /// raw: exempted from conntrack, accept mark set.
    AllowNotrack = 2,
    /// mangle PREROUTING: accepted, accept mark set; ingress host endpoint policy is skipped later.
    AllowSkipHep = 3,
    /// No decision at this hook; later hooks and the rules of others decide.
    Continue = 4,
}

impl Verdict {
    /// All verdicts, in the order of their numbers.
    pub const ALL: [Self; 5] =
        [Self::Deny, Self::Allow, Self::AllowNotrack, Self::AllowSkipHep, Self::Continue];

    /// The verdict with this [`name`](Self::name).
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verdict| verdict.name() == name)
    }

    /// The word used in JSON lines, for example `allow-notrack`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::Allow => "allow",
            Self::AllowNotrack => "allow-notrack",
            Self::AllowSkipHep => "allow-skip-hep",
            Self::Continue => "continue",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Conntrack state of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum CtState {
    /// First packet of a connection.
    New = 0,
    /// Belongs to a known connection.
    Established = 1,
    /// Belongs to an expectation or is an ICMP error about a known connection.
    Related = 2,
    /// conntrack could not place it.
    Invalid = 3,
    /// Exempted from conntrack (E-60).
    Untracked = 4,
}

impl CtState {
    /// All states.
    pub const ALL: [Self; 5] = [Self::New, Self::Established, Self::Related, Self::Invalid, Self::Untracked];

    /// The word used in JSON lines, for example `established`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Established => "established",
            Self::Related => "related",
            Self::Invalid => "invalid",
            Self::Untracked => "untracked",
        }
    }

    /// The state with this [`name`](Self::name).
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// IP protocol numbers that policy treats apart (IANA "Assigned Internet Protocol Numbers").
pub mod protocol {
    /// Internet Control Message Protocol for IPv4.
    pub const ICMP: u8 = 1;
    /// IPv4 encapsulated in IP (IP-in-IP, E-20.5).
    pub const IPIP: u8 = 4;
    /// Transmission Control Protocol.
    pub const TCP: u8 = 6;
    /// User Datagram Protocol.
    pub const UDP: u8 = 17;
    /// Internet Control Message Protocol for IPv6.
    pub const ICMPV6: u8 = 58;
    /// Stream Control Transmission Protocol.
    pub const SCTP: u8 = 132;
    /// UDP-Lite.
    pub const UDPLITE: u8 = 136;
}

/// What the transport header tells, if there is one to read. Only protocols with ports have `Ports`, only ICMP and
/// `ICMPv6` have `Icmp`: engines rely on it.
///
/// A port and `type << 8 | code` of ICMP lie in the same two bytes (of little-endian machines), so that whoever asks for one
/// of them needs no branch to tell protocols apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C, u8)]
pub enum Transport {
    /// No readable transport header: a later fragment, or a protocol without ports (M-19).
    Opaque,
    /// TCP, UDP, SCTP or UDP-Lite.
    Ports {
        /// Destination port.
        destination: u16,
        /// Source port.
        source: u16,
    },
    /// ICMP or `ICMPv6`.
    Icmp {
        /// ICMP code.
        code: u8,
        /// ICMP type.
        kind: u8,
    },
}

impl Transport {
    /// What the protocol makes of two numbers: ports, or ICMP type and code in the second one, or nothing.
    #[inline]
    pub const fn of(protocol: u8, source: u16, destination: u16) -> Self {
        match protocol {
            protocol::TCP | protocol::UDP | protocol::SCTP | protocol::UDPLITE => {
                Self::Ports { source, destination }
            }
            protocol::ICMP | protocol::ICMPV6 => {
                let [kind, code] = destination.to_be_bytes();
                Self::Icmp { kind, code }
            }
            _ => Self::Opaque,
        }
    }
}

/// What the bytes of one packet tell: addresses, protocol, and ports or ICMP type and code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FiveTuple {
    /// Of both addresses.
    pub family: Family,
    /// Source address as a number; an IPv4 address is in the low 32 bits.
    pub source: u128,
    /// Destination address as a number; an IPv4 address is in the low 32 bits.
    pub destination: u128,
    /// IP protocol number (for IPv6: of the upper layer, behind extension headers).
    pub protocol: u8,
    /// Ports, ICMP type and code, or nothing readable.
    pub transport: Transport,
}

/// An address as (family, number): IPv4 in the low 32 bits.
pub fn address_number(address: IpAddr) -> (Family, u128) {
    match address {
        IpAddr::V4(v4) => (Family::V4, u128::from(u32::from(v4))),
        IpAddr::V6(v6) => (Family::V6, u128::from(v6)),
    }
}

/// The address that [`address_number`] would turn into this pair; IPv4 uses the low 32 bits.
#[allow(clippy::cast_possible_truncation)] // IPv4 numbers are below 2^32 by construction.
pub fn number_address(family: Family, number: u128) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4((number as u32).into()),
        Family::V6 => IpAddr::V6(number.into()),
    }
}

/// An interface as one [`DecisionTable`](crate::table::DecisionTable) knows it: an index into that table.
/// Not a kernel ifindex, and not valid for another table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InterfaceId(pub u32);

impl InterfaceId {
    /// No interface (the in-interface of a locally made packet, the out-interface before routing).
    pub const NONE: Self = Self(0);
}

/// One question to the engine: a packet, and where and in which state it was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// What the bytes tell.
    pub tuple: FiveTuple,
    /// Where it was seen.
    pub hook: Hook,
    /// In-interface, or [`InterfaceId::NONE`].
    pub input: InterfaceId,
    /// Out-interface, or [`InterfaceId::NONE`].
    pub output: InterfaceId,
    /// Accept mark (bit A) on arrival (E-48).
    pub accepted: bool,
    /// Conntrack state.
    pub ct: CtState,
    /// The flow was DNATed in nat OUTPUT (E-37).
    pub dnatted: bool,
}

/// A checked 32-bit index.
macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(u32);

        impl $name {
            /// The id with this index. Panics above `u32::MAX`: the compiler's limits are far below.
            pub fn new(index: usize) -> Self {
                Self(u32::try_from(index).expect("ids are 32-bit; the compiler's limits keep below"))
            }

            /// The id with this number.
            #[inline]
            pub const fn from_number(number: u32) -> Self {
                Self(number)
            }

            /// The number, as scripts see it.
            #[inline]
            pub const fn number(self) -> u32 {
                self.0
            }

            /// The index, for slices.
            #[inline]
            pub const fn index(self) -> usize {
                self.0 as usize
            }
        }
    };
}
pub(crate) use id;

id! {
    /// Leads to the meaning of a decision: tier, policy, rule and reason
    /// ([`Program::outcome`](crate::program::Program::outcome)).
    OutcomeId
}
id! {
    /// A local endpoint of one [`Program`](crate::program::Program).
    EndpointId
}
