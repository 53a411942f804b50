//! What rules of each family look like: weights, measured on rule sets of 10,000 rules that ClassBench made from its
//! published seeds acl1, fw1 and ipc1; where it spreads addresses evenly there, below the top of
//! the tries, on sets of 1,000.

use super::ports::{
    ACL_PORTS, CHAIN_PORTS, CHAIN_SOURCE_PORTS, FIREWALL_PORTS, FIREWALL_SOURCE_PORTS, Ports,
};
use super::trie::{Level, Trie};

/// A kind of rule set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// Access list of a router: specific address pairs, many services.
    Acl,
    /// Firewall: most rules name only one of the two addresses.
    Firewall,
    /// Chain of a packet filter: a mixture, with many nested networks.
    IpChain,
}

/// What a port field holds.
#[derive(Clone, Copy, Debug)]
pub enum PortClass {
    Any,
    /// 1024 and above.
    High,
    /// A single port.
    One,
    /// Any other range.
    Range,
}

/// A protocol with its port classes.
#[derive(Debug)]
pub struct Service {
    pub weight: u32,
    pub protocol: Option<u8>,
    pub source: PortClass,
    pub destination: PortClass,
}

/// Prefix lengths of both addresses, and the services that go with them.
#[derive(Debug)]
pub struct AddressPair {
    pub weight: u32,
    pub source: Lengths,
    pub destination: Lengths,
    pub services: &'static [Service],
}

/// Prefix lengths with weights.
type Lengths = &'static [(u8, u32)];

impl Family {
    /// All families.
    pub const ALL: [Self; 3] = [Self::Acl, Self::Firewall, Self::IpChain];

    /// `acl`, `fw` or `ipc`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Acl => "acl",
            Self::Firewall => "fw",
            Self::IpChain => "ipc",
        }
    }

    pub(super) const fn address_pairs(self) -> &'static [AddressPair] {
        match self {
            Self::Acl => ACL_PAIRS,
            Self::Firewall => FIREWALL_PAIRS,
            Self::IpChain => CHAIN_PAIRS,
        }
    }

    pub(super) const fn sources(self) -> &'static Trie {
        match self {
            Self::Acl => &ACL_SOURCES,
            Self::Firewall => &FIREWALL_SOURCES,
            Self::IpChain => &CHAIN_SOURCES,
        }
    }

    pub(super) const fn destinations(self) -> &'static Trie {
        match self {
            Self::Acl => &ACL_DESTINATIONS,
            Self::Firewall => &FIREWALL_DESTINATIONS,
            Self::IpChain => &CHAIN_DESTINATIONS,
        }
    }

    pub(super) const fn source_ports(self) -> Ports {
        match self {
            Self::Acl => &[],
            Self::Firewall => FIREWALL_SOURCE_PORTS,
            Self::IpChain => CHAIN_SOURCE_PORTS,
        }
    }

    pub(super) const fn destination_ports(self) -> Ports {
        match self {
            Self::Acl => ACL_PORTS,
            Self::Firewall => FIREWALL_PORTS,
            Self::IpChain => CHAIN_PORTS,
        }
    }
}

const TCP: Option<u8> = Some(6);
const UDP: Option<u8> = Some(17);
const ICMP: Option<u8> = Some(1);
const GRE: Option<u8> = Some(47);
const ANY: Option<u8> = None;

const fn service(weight: u32, protocol: Option<u8>, source: PortClass, destination: PortClass) -> Service {
    Service { weight, protocol, source, destination }
}

const fn level(from: u8, branch: u32, skew: u32) -> Level {
    Level { from, branch, skew }
}

use PortClass::{Any, High, One, Range};

/// Prefixes that name nearly nothing.
const WIDE: Lengths = &[(0, 60), (1, 30), (2, 5), (7, 3), (8, 2)];

const ACL_SOURCE_LENGTHS: Lengths =
    &[(21, 2), (22, 24), (23, 70), (24, 43), (25, 7), (28, 1), (29, 10), (30, 53), (31, 238), (32, 545)];
const ACL_DESTINATION_LENGTHS: Lengths = &[
    (20, 1),
    (21, 21),
    (22, 72),
    (23, 40),
    (24, 25),
    (25, 17),
    (26, 4),
    (27, 5),
    (28, 7),
    (29, 4),
    (30, 37),
    (31, 192),
    (32, 518),
];
const ACL_BLOCKS: Lengths = &[(9, 1), (12, 1), (13, 1), (14, 2), (15, 7), (16, 9), (17, 6)];
const ACL_WIDE_DESTINATIONS: Lengths =
    &[(0, 6), (1, 4), (2, 3), (3, 3), (4, 2), (5, 2), (6, 3), (7, 4), (8, 3)];
const ACL_NETWORKS: Lengths = &[(22, 24), (23, 70), (24, 43)];
const ACL_SERVICES: &[Service] = &[
    service(617, TCP, Any, One),
    service(150, TCP, Any, Any),
    service(115, TCP, Any, Range),
    service(78, ANY, Any, Any),
    service(29, ICMP, Any, Any),
    service(10, UDP, Any, One),
    service(1, UDP, Any, Range),
];
const ACL_WIDE_SERVICES: &[Service] =
    &[service(53, TCP, Any, Any), service(33, ANY, Any, Any), service(13, ICMP, Any, Any)];
const ACL_PAIRS: &[AddressPair] = &[
    AddressPair {
        weight: 943,
        source: ACL_SOURCE_LENGTHS,
        destination: ACL_DESTINATION_LENGTHS,
        services: ACL_SERVICES,
    },
    AddressPair { weight: 26, source: ACL_NETWORKS, destination: ACL_BLOCKS, services: ACL_SERVICES },
    AddressPair {
        weight: 23,
        source: ACL_NETWORKS,
        destination: ACL_WIDE_DESTINATIONS,
        services: ACL_WIDE_SERVICES,
    },
    AddressPair { weight: 2, source: WIDE, destination: ACL_BLOCKS, services: ACL_WIDE_SERVICES },
    AddressPair { weight: 5, source: WIDE, destination: ACL_WIDE_DESTINATIONS, services: ACL_WIDE_SERVICES },
];
const ACL_SOURCES: Trie = Trie {
    even: (7.0, 6.0),
    levels: &[
        level(0, 0, 0),
        level(20, 5, 98),
        level(21, 55, 97),
        level(22, 95, 92),
        level(23, 95, 95),
        level(24, 77, 75),
        level(25, 66, 71),
        level(26, 83, 24),
        level(27, 83, 27),
        level(28, 81, 49),
        level(29, 90, 62),
        level(30, 100, 52),
        level(31, 23, 34),
    ],
};
const ACL_DESTINATIONS: Trie = Trie {
    even: (0.0, 0.0),
    levels: &[
        level(0, 100, 1),
        level(2, 100, 95),
        level(3, 100, 75),
        level(4, 100, 39),
        level(5, 100, 22),
        level(7, 73, 30),
        level(8, 63, 60),
        level(9, 8, 90),
        level(11, 32, 90),
        level(17, 17, 95),
        level(18, 0, 0),
        level(19, 40, 97),
        level(21, 75, 85),
        level(22, 60, 90),
        level(30, 100, 68),
        level(31, 20, 40),
    ],
};

const FIREWALL_SOURCES: Trie = Trie {
    even: (13.0, 10.0),
    levels: &[
        level(0, 100, 6),
        level(2, 25, 81),
        level(3, 0, 0),
        level(4, 20, 89),
        level(5, 50, 66),
        level(6, 17, 99),
        level(7, 33, 51),
        level(8, 14, 67),
        level(9, 0, 0),
        level(10, 29, 97),
        level(13, 0, 0),
        level(14, 14, 98),
        level(16, 0, 0),
        level(19, 14, 98),
        level(20, 71, 96),
        level(22, 80, 90),
        level(24, 50, 56),
        level(25, 67, 95),
        level(26, 100, 82),
        level(28, 100, 90),
        level(30, 100, 46),
        level(31, 20, 20),
    ],
};
const FIREWALL_DESTINATIONS: Trie = Trie {
    even: (13.0, 10.0),
    levels: &[
        level(0, 100, 6),
        level(2, 25, 99),
        level(3, 0, 0),
        level(4, 75, 97),
        level(5, 25, 96),
        level(6, 100, 96),
        level(7, 25, 17),
        level(8, 20, 98),
        level(9, 0, 0),
        level(18, 40, 46),
        level(19, 29, 98),
        level(21, 43, 76),
        level(22, 5, 50),
        level(24, 30, 60),
        level(26, 45, 75),
        level(28, 40, 80),
        level(29, 71, 72),
        level(30, 100, 36),
        level(31, 0, 0),
    ],
};
const FIREWALL_SPECIFIC_SOURCES: Lengths = &[
    (20, 6),
    (21, 8),
    (22, 10),
    (23, 10),
    (24, 3),
    (25, 5),
    (26, 9),
    (27, 12),
    (28, 18),
    (29, 18),
    (30, 32),
    (31, 93),
    (32, 121),
];
const FIREWALL_SPECIFIC_DESTINATIONS: Lengths = &[
    (20, 3),
    (21, 7),
    (22, 6),
    (23, 2),
    (25, 1),
    (26, 3),
    (27, 6),
    (28, 10),
    (29, 7),
    (30, 66),
    (31, 271),
    (32, 326),
];
const FIREWALL_BLOCKS: Lengths = &[(9, 2), (11, 2), (12, 3), (13, 1), (15, 2), (16, 3), (17, 1), (19, 2)];
const FIREWALL_WIDE_SOURCES: Lengths = &[(0, 416), (1, 192), (2, 29), (7, 1), (8, 3)];
const FIREWALL_WIDE_DESTINATIONS: Lengths = &[(0, 186), (1, 94), (2, 13)];
const FIREWALL_PAIRS: &[AddressPair] = &[
    AddressPair {
        weight: 610,
        source: FIREWALL_WIDE_SOURCES,
        destination: FIREWALL_SPECIFIC_DESTINATIONS,
        services: &[
            service(699, TCP, Any, One),
            service(194, UDP, Any, One),
            service(33, TCP, High, High),
            service(20, UDP, One, Any),
            service(19, UDP, High, One),
            service(17, UDP, High, High),
            service(14, UDP, One, One),
            service(2, TCP, Any, Any),
            service(2, ICMP, Any, Any),
        ],
    },
    AddressPair {
        weight: 246,
        source: FIREWALL_SPECIFIC_SOURCES,
        destination: FIREWALL_WIDE_DESTINATIONS,
        services: FIREWALL_OUTGOING,
    },
    AddressPair {
        weight: 15,
        source: FIREWALL_BLOCKS,
        destination: FIREWALL_WIDE_DESTINATIONS,
        services: FIREWALL_OUTGOING,
    },
    AddressPair {
        weight: 97,
        source: FIREWALL_SPECIFIC_SOURCES,
        destination: FIREWALL_SPECIFIC_DESTINATIONS,
        services: &[
            service(211, TCP, Any, Any),
            service(187, TCP, High, High),
            service(130, GRE, Any, Any),
            service(88, UDP, High, High),
            service(80, UDP, One, High),
            service(80, ICMP, Any, Any),
            service(76, TCP, Any, One),
            service(65, UDP, High, One),
            service(45, UDP, One, One),
            service(21, ANY, Any, Any),
            service(17, UDP, Any, One),
        ],
    },
    AddressPair {
        weight: 31,
        source: FIREWALL_WIDE_SOURCES,
        destination: FIREWALL_WIDE_DESTINATIONS,
        services: &[
            service(412, TCP, Any, One),
            service(189, UDP, Any, One),
            service(110, UDP, One, Any),
            service(103, TCP, Any, Any),
            service(72, GRE, Any, Any),
            service(45, ICMP, Any, Any),
            service(31, ANY, Any, Any),
            service(21, UDP, High, Range),
            service(17, UDP, Range, High),
        ],
    },
];
const FIREWALL_OUTGOING: &[Service] = &[
    service(350, UDP, One, Any),
    service(267, TCP, Any, Any),
    service(143, GRE, Any, Any),
    service(100, ICMP, Any, Any),
    service(35, UDP, One, High),
    service(34, UDP, One, One),
    service(33, TCP, Any, One),
    service(29, ANY, Any, Any),
    service(10, UDP, Any, One),
];

const CHAIN_SPECIFIC_SOURCES: Lengths = &[
    (21, 11),
    (22, 52),
    (23, 140),
    (24, 147),
    (25, 89),
    (26, 38),
    (27, 22),
    (28, 14),
    (29, 7),
    (30, 15),
    (31, 79),
    (32, 178),
];
const CHAIN_SPECIFIC_DESTINATIONS: Lengths = &[
    (21, 4),
    (22, 15),
    (23, 70),
    (24, 124),
    (25, 101),
    (26, 53),
    (27, 28),
    (28, 19),
    (29, 13),
    (30, 16),
    (31, 115),
    (32, 264),
];
const CHAIN_BLOCKS: Lengths = &[(14, 2), (15, 13), (16, 31), (17, 29), (18, 8)];
const CHAIN_SERVICES: &[Service] = &[
    service(334, ANY, Any, Any),
    service(214, UDP, Any, One),
    service(127, TCP, Any, One),
    service(85, TCP, One, Any),
    service(75, UDP, One, Any),
    service(69, UDP, Any, High),
    service(22, TCP, Any, Any),
    service(19, TCP, Any, Range),
    service(18, TCP, Range, Any),
    service(13, ICMP, Any, Any),
    service(6, UDP, Any, Range),
    service(5, UDP, One, One),
    service(4, UDP, High, Any),
    service(3, GRE, Any, Any),
];
const CHAIN_PAIRS: &[AddressPair] = &[
    AddressPair {
        weight: 644,
        source: CHAIN_SPECIFIC_SOURCES,
        destination: CHAIN_SPECIFIC_DESTINATIONS,
        services: CHAIN_SERVICES,
    },
    AddressPair {
        weight: 115,
        source: WIDE,
        destination: CHAIN_SPECIFIC_DESTINATIONS,
        services: &[
            service(285, UDP, Any, One),
            service(190, ANY, Any, Any),
            service(189, TCP, Any, One),
            service(133, UDP, One, Any),
            service(122, TCP, One, Any),
            service(25, UDP, Any, High),
            service(23, TCP, Any, Range),
            service(16, TCP, Any, Any),
            service(5, ICMP, Any, Any),
        ],
    },
    AddressPair {
        weight: 79,
        source: CHAIN_SPECIFIC_SOURCES,
        destination: CHAIN_BLOCKS,
        services: CHAIN_SERVICES,
    },
    AddressPair {
        weight: 70,
        source: CHAIN_SPECIFIC_SOURCES,
        destination: WIDE,
        services: &[
            service(392, ANY, Any, Any),
            service(265, UDP, Any, One),
            service(143, TCP, Any, One),
            service(62, UDP, One, Any),
            service(51, TCP, One, Any),
            service(21, TCP, Range, Any),
            service(15, TCP, Any, Any),
            service(14, ICMP, Any, Any),
            service(11, UDP, High, Any),
        ],
    },
    AddressPair {
        weight: 63,
        source: CHAIN_BLOCKS,
        destination: CHAIN_SPECIFIC_DESTINATIONS,
        services: CHAIN_SERVICES,
    },
    AddressPair { weight: 14, source: CHAIN_BLOCKS, destination: CHAIN_BLOCKS, services: CHAIN_SERVICES },
    AddressPair { weight: 6, source: CHAIN_BLOCKS, destination: WIDE, services: CHAIN_SERVICES },
    AddressPair { weight: 4, source: WIDE, destination: CHAIN_BLOCKS, services: CHAIN_SERVICES },
    AddressPair {
        weight: 4,
        source: WIDE,
        destination: WIDE,
        services: &[
            service(44, UDP, Any, One),
            service(31, TCP, Any, One),
            service(14, ANY, Any, Any),
            service(8, TCP, Any, Any),
        ],
    },
];
const CHAIN_SOURCES: Trie = Trie {
    even: (5.0, 4.0),
    levels: &[
        level(0, 100, 5),
        level(5, 19, 24),
        level(6, 8, 36),
        level(7, 5, 90),
        level(8, 20, 72),
        level(10, 5, 66),
        level(12, 3, 78),
        level(13, 24, 99),
        level(14, 69, 95),
        level(15, 85, 94),
        level(17, 62, 95),
        level(18, 7, 56),
        level(19, 22, 70),
        level(20, 59, 93),
        level(21, 89, 90),
        level(22, 97, 70),
        level(25, 95, 85),
        level(26, 84, 90),
        level(27, 76, 94),
        level(28, 61, 91),
        level(29, 82, 90),
        level(30, 100, 53),
        level(31, 9, 16),
    ],
};
const CHAIN_DESTINATIONS: Trie = Trie {
    even: (4.0, 4.0),
    levels: &[
        level(0, 100, 5),
        level(4, 100, 61),
        level(5, 100, 72),
        level(6, 25, 77),
        level(7, 0, 0),
        level(8, 54, 48),
        level(10, 1, 98),
        level(14, 19, 68),
        level(15, 48, 93),
        level(16, 73, 76),
        level(17, 24, 48),
        level(18, 6, 65),
        level(20, 26, 60),
        level(21, 36, 95),
        level(22, 78, 84),
        level(23, 92, 77),
        level(25, 87, 82),
        level(26, 72, 87),
        level(28, 58, 85),
        level(30, 100, 55),
        level(31, 8, 52),
    ],
};
