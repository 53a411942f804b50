//! Packets as bytes, each with what made it, and the five-tuple or the error kind that they must give.
//!
//! "lo" literals: `tcpdump -n -i lo -x` in a fresh network namespace while Python sent them; the call is named.

use std::net::IpAddr;

use labelgate::flow::{Family, FiveTuple, Transport, address_number, protocol};
use labelgate::wire::{MAX_EXTENSION_HEADERS, WireError, parse};

/// Bytes from hexadecimal text; blanks are ignored.
fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u32> = hex.chars().filter_map(|c| c.to_digit(16)).collect();
    assert_eq!(digits.len() % 2, 0, "whole bytes");
    digits.chunks(2).map(|pair| u8::try_from(pair[0] * 16 + pair[1]).unwrap()).collect()
}

fn tuple(source: &str, destination: &str, protocol: u8, transport: Transport) -> FiveTuple {
    let (family, source) = address_number(source.parse::<IpAddr>().unwrap());
    let (_, destination) = address_number(destination.parse::<IpAddr>().unwrap());
    FiveTuple { family, source, destination, protocol, transport }
}

fn ports(source: u16, destination: u16) -> Transport {
    Transport::Ports { source, destination }
}

/// The whole packet is there.
fn whole(family: Family, packet: &[u8]) -> Result<FiveTuple, WireError> {
    parse(family, packet, packet.len())
}

/// lo: `u.bind(("127.0.0.1", 40000)); u.sendto(b"hello", ("127.0.0.2", 7001))`
const UDP: &str = "4500 0021 5a46 4000 4011 e282 7f00 0001 7f00 0002 9c40 1b59 000d fe21 6865 6c6c 6f";

/// lo: `v.bind(("::1", 40000)); v.sendto(b"hello", ("::1", 7001))`
const UDP6: &str = "600d d055 000d 1140 0000 0000 0000 0000 0000 0000 0000 0001 0000 0000 0000 0000
                    0000 0000 0000 0001 9c40 1b59 000d 0020 6865 6c6c 6f";

/// lo: `r.sendto(struct.pack("!HHII", 40003, 7004, 0, 0), ("127.0.0.2", 0))` on a raw socket of protocol 132
const SCTP: &str = "4500 0020 d44d 4000 4084 6809 7f00 0001 7f00 0002 9c43 1b5c 0000 0000 0000 0000";

/// An IPv6 header by hand, from `2001:db8::1` to `2001:db8::2`: this first header number and payload.
fn ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = bytes(
        "6000 0000 0000 0040 2001 0db8 0000 0000 0000 0000 0000 0001
                            2001 0db8 0000 0000 0000 0000 0000 0002",
    );
    packet[4..6].copy_from_slice(&u16::try_from(payload.len()).unwrap().to_be_bytes());
    packet[6] = next;
    packet.extend_from_slice(payload);
    packet
}

fn ipv6_tuple(protocol: u8, transport: Transport) -> FiveTuple {
    tuple("2001:db8::1", "2001:db8::2", protocol, transport)
}

/// A UDP header by hand: port 1000 to 53, no data.
const UDP_HEADER: [u8; 8] = [0x03, 0xe8, 0, 53, 0, 8, 0, 0];

#[test]
fn udp() {
    let expected = tuple("127.0.0.1", "127.0.0.2", protocol::UDP, ports(40000, 7001));
    assert_eq!(whole(Family::V4, &bytes(UDP)), Ok(expected));
    let expected = tuple("::1", "::1", protocol::UDP, ports(40000, 7001));
    assert_eq!(whole(Family::V6, &bytes(UDP6)), Ok(expected));
}

#[test]
fn udp_behind_ipv4_options() {
    // lo: u.setsockopt(IPPROTO_IP, IP_OPTIONS, bytes([0x94, 4, 0, 0])); u.sendto(b"hello", ("127.0.0.2", 7001))
    let packet = bytes(
        "4600 0025 5a48 4000 4011 4d78 7f00 0001 7f00 0002 9404 0000
                        9c40 1b59 000d fe21 6865 6c6c 6f",
    );
    let expected = tuple("127.0.0.1", "127.0.0.2", protocol::UDP, ports(40000, 7001));
    assert_eq!(whole(Family::V4, &packet), Ok(expected));
}

#[test]
fn tcp() {
    // lo: t.bind(("127.0.0.1", 40002)); t.connect(("127.0.0.2", 7003))
    let packet = bytes(
        "4500 003c 8ed2 4000 4006 ade6 7f00 0001 7f00 0002 9c42 1b5b 36f7 7a28 0000 0000
                        a002 faf0 fe31 0000 0204 05b4 0402 080a a16b 5cf2 0000 0000 0103 030a",
    );
    let expected = tuple("127.0.0.1", "127.0.0.2", protocol::TCP, ports(40002, 7003));
    assert_eq!(whole(Family::V4, &packet), Ok(expected));
    // lo: t.bind(("::1", 40002)); t.connect(("::1", 7003))
    let packet = bytes(
        "600f 3f17 0028 0640 0000 0000 0000 0000 0000 0000 0000 0001 0000 0000 0000 0000
                        0000 0000 0000 0001 9c42 1b5b 6f7b 6538 0000 0000 a002 fd20 0030 0000 0204 05a0
                        0402 080a b90c 58c1 0000 0000 0103 030a",
    );
    assert_eq!(whole(Family::V6, &packet), Ok(tuple("::1", "::1", protocol::TCP, ports(40002, 7003))));
}

#[test]
fn sctp_and_udplite() {
    let expected = tuple("127.0.0.1", "127.0.0.2", protocol::SCTP, ports(40003, 7004));
    assert_eq!(whole(Family::V4, &bytes(SCTP)), Ok(expected));
    // lo: l = socket(AF_INET, SOCK_DGRAM, 136); l.bind(("127.0.0.1", 40001)); l.sendto(b"hello", ("127.0.0.2", 7002))
    let packet = bytes("4500 0021 f85d 4000 4088 43f4 7f00 0001 7f00 0002 9c41 1b5a 000d 05ec 6865 6c6c 6f");
    let expected = tuple("127.0.0.1", "127.0.0.2", protocol::UDPLITE, ports(40001, 7002));
    assert_eq!(whole(Family::V4, &packet), Ok(expected));
}

#[test]
fn icmp() {
    // lo: the kernel's answer to UDP above, port unreachable; its data cut off here and the total length with it
    let packet = bytes("45c0 001c 3ae8 0000 4001 4115 7f00 0002 7f00 0001 0303 0362 0000 0000");
    let expected = tuple("127.0.0.2", "127.0.0.1", protocol::ICMP, Transport::Icmp { kind: 3, code: 3 });
    assert_eq!(whole(Family::V4, &packet), Ok(expected));
    // by hand: echo request
    let packet = ipv6(protocol::ICMPV6, &[128, 0, 0, 0, 0, 1, 0, 1]);
    let expected = ipv6_tuple(protocol::ICMPV6, Transport::Icmp { kind: 128, code: 0 });
    assert_eq!(whole(Family::V6, &packet), Ok(expected));
}

#[test]
fn icmp_of_the_other_family_has_no_type() {
    let packet = ipv6(protocol::ICMP, &[8, 0, 0, 0]);
    assert_eq!(whole(Family::V6, &packet), Ok(ipv6_tuple(protocol::ICMP, Transport::Opaque)));
}

#[test]
fn protocol_without_ports() {
    // lo: r.sendto(b"\0\0\x08\0", ("127.0.0.2", 0)) on a raw socket of protocol 47 (GRE)
    let packet = bytes("4500 0018 5080 4000 402f ec33 7f00 0001 7f00 0002 0000 0800");
    assert_eq!(whole(Family::V4, &packet), Ok(tuple("127.0.0.1", "127.0.0.2", 47, Transport::Opaque)));
    // by hand: IPv6 "no next header", and ESP, which nobody can look behind
    for number in [59, 50] {
        assert_eq!(whole(Family::V6, &ipv6(number, &[])), Ok(ipv6_tuple(number, Transport::Opaque)));
    }
}

#[test]
fn ipv4_fragments() {
    // lo, MTU 1500: u.sendto(b"x" * 1600, ("127.0.0.2", 7001)); first 48 bytes of 1500
    let first = bytes(
        "4500 05dc 5a54 2000 4011 fcb9 7f00 0001 7f00 0002 9c40 1b59 0648 c548 7878 7878
                       7878 7878 7878 7878 7878 7878 7878 7878",
    );
    let expected = tuple("127.0.0.1", "127.0.0.2", protocol::UDP, ports(40000, 7001));
    assert_eq!(parse(Family::V4, &first, 1500), Ok(expected));
    // the second fragment of the same datagram, first 28 bytes of 148: user data where ports would be
    let second = bytes("4500 0094 5a54 00b9 4011 2149 7f00 0001 7f00 0002 7878 7878 7878 7878");
    let expected = tuple("127.0.0.1", "127.0.0.2", protocol::UDP, Transport::Opaque);
    assert_eq!(parse(Family::V4, &second, 148), Ok(expected));
}

#[test]
fn ipv6_fragments() {
    // lo, MTU 1500: v.sendto(b"x" * 1600, ("::1", 7001)); first 56 bytes of 1496
    let first = bytes(
        "600d d055 05b0 2c40 0000 0000 0000 0000 0000 0000 0000 0001 0000 0000 0000 0000
                       0000 0000 0000 0001 1100 0001 81a4 0baf 9c40 1b59 0648 c34a",
    );
    let expected = tuple("::1", "::1", protocol::UDP, ports(40000, 7001));
    assert_eq!(parse(Family::V6, &first, 1496), Ok(expected));
    // the second fragment, first 52 bytes of 208
    let second = bytes(
        "600d d055 00a8 2c40 0000 0000 0000 0000 0000 0000 0000 0001 0000 0000 0000 0000
                        0000 0000 0000 0001 1100 05a8 81a4 0baf 7878 7878",
    );
    let expected = tuple("::1", "::1", protocol::UDP, Transport::Opaque);
    assert_eq!(parse(Family::V6, &second, 208), Ok(expected));
}

#[test]
fn ipv6_extension_headers() {
    // lo: v.setsockopt(IPPROTO_IPV6, IPV6_HOPOPTS, bytes([0, 0, 1, 4, 0, 0, 0, 0])), IPV6_DSTOPTS the same;
    // v.sendto(b"hello", ("::1", 7001))
    let packet = bytes(
        "600d d055 001d 0040 0000 0000 0000 0000 0000 0000 0000 0001 0000 0000 0000 0000
                        0000 0000 0000 0001 3c00 0104 0000 0000 1100 0104 0000 0000 9c40 1b59 000d 0467
                        6865 6c6c 6f",
    );
    let expected = tuple("::1", "::1", protocol::UDP, ports(40000, 7001));
    assert_eq!(whole(Family::V6, &packet), Ok(expected));
}

#[test]
fn each_ipv6_extension_header_by_hand() {
    let chains: [(u8, &[u8]); 6] = [
        (0, &[17, 0, 1, 4, 0, 0, 0, 0]), // hop-by-hop, 8 bytes
        (60, &[17, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), // destination options, 16 bytes
        (43, &[17, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), // routing, 24 bytes
        (44, &[17, 0, 0, 0, 0, 0, 0, 9]), // atomic fragment
        (51, &[17, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1]), // authentication: (1 + 2) * 4
        (51, &[60, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 17, 0, 1, 4, 0, 0, 0, 0]), // authentication, options
    ];
    for (first, headers) in chains {
        let packet = ipv6(first, &[headers, &UDP_HEADER].concat());
        let expected = ipv6_tuple(protocol::UDP, ports(1000, 53));
        assert_eq!(whole(Family::V6, &packet), Ok(expected), "headers from {first}");
    }
}

#[test]
fn too_many_ipv6_extension_headers() {
    let options = |count: usize| {
        let mut payload = [60, 0, 1, 4, 0, 0, 0, 0].repeat(count - 1);
        payload.extend_from_slice(&[17, 0, 1, 4, 0, 0, 0, 0]);
        payload.extend_from_slice(&UDP_HEADER);
        ipv6(60, &payload)
    };
    let most = ipv6_tuple(protocol::UDP, ports(1000, 53));
    assert_eq!(whole(Family::V6, &options(MAX_EXTENSION_HEADERS)), Ok(most));
    let over = options(MAX_EXTENSION_HEADERS + 1);
    assert_eq!(whole(Family::V6, &over), Err(WireError::ExtensionHeaders));
}

#[test]
fn a_copy_of_128_bytes_is_normal() {
    // lo: the first fragment above, as a queue copies it
    let mut packet = bytes(UDP);
    packet[2..4].copy_from_slice(&1400_u16.to_be_bytes());
    packet.resize(128, 0x78);
    let expected = tuple("127.0.0.1", "127.0.0.2", protocol::UDP, ports(40000, 7001));
    assert_eq!(parse(Family::V4, &packet, 1400), Ok(expected));
}

#[test]
fn headers_behind_the_copy() {
    // by hand: 88 bytes of destination options fill a copy of 128
    let mut options = vec![17, 10];
    options.resize(88, 0);
    let packet = ipv6(60, &[&options[..], &UDP_HEADER].concat());
    assert_eq!(parse(Family::V6, &packet[..128], packet.len()), Err(WireError::NotCopied));
    assert_eq!(parse(Family::V4, &bytes(UDP)[..10], 33), Err(WireError::NotCopied));
    assert_eq!(parse(Family::V4, &[], 33), Err(WireError::NotCopied));
}

#[test]
fn padding_is_not_read() {
    // by hand: the IP header says that two bytes follow it; a link layer padded the packet to 46 bytes
    let mut packet = bytes(UDP);
    packet[2..4].copy_from_slice(&22_u16.to_be_bytes());
    packet.resize(46, 0);
    assert_eq!(whole(Family::V4, &packet), Err(WireError::Truncated));
    // and a whole datagram with padding
    let mut packet = bytes(UDP);
    packet.resize(46, 0);
    let expected = tuple("127.0.0.1", "127.0.0.2", protocol::UDP, ports(40000, 7001));
    assert_eq!(whole(Family::V4, &packet), Ok(expected));
}

#[test]
fn super_packets_beyond_the_length_field() {
    let mut packet = bytes(UDP);
    packet[2..4].copy_from_slice(&[0, 0]);
    let expected = tuple("127.0.0.1", "127.0.0.2", protocol::UDP, ports(40000, 7001));
    assert_eq!(parse(Family::V4, &packet, 65_536), Ok(expected));
    assert_eq!(parse(Family::V4, &packet, 65_535), Err(WireError::TotalLength));
    let mut packet = bytes(UDP6);
    packet[4..6].copy_from_slice(&[0, 0]);
    let expected = tuple("::1", "::1", protocol::UDP, ports(40000, 7001));
    assert_eq!(parse(Family::V6, &packet, 65_576), Ok(expected));
    assert_eq!(parse(Family::V6, &packet, 65_575), Err(WireError::Truncated));
}

#[test]
fn wrong_version() {
    assert_eq!(whole(Family::V6, &bytes(UDP)), Err(WireError::Version));
    assert_eq!(whole(Family::V4, &bytes(UDP6)), Err(WireError::Version));
    assert_eq!(whole(Family::V4, &[0x55; 40]), Err(WireError::Version));
}

#[test]
fn lengths_that_cannot_be() {
    let mut packet = bytes(UDP);
    packet[0] = 0x44;
    assert_eq!(whole(Family::V4, &packet), Err(WireError::HeaderLength));
    packet[0] = 0x4f; // 60 bytes of header in 33 of packet
    assert_eq!(whole(Family::V4, &packet), Err(WireError::TotalLength));
    let packet = bytes(UDP);
    assert_eq!(parse(Family::V4, &packet, packet.len() - 1), Err(WireError::TotalLength));
    let packet = bytes(UDP6);
    assert_eq!(parse(Family::V6, &packet, packet.len() - 1), Err(WireError::TotalLength));
}

#[test]
fn packets_that_end_inside_a_header() {
    assert_eq!(whole(Family::V4, &[]), Err(WireError::Truncated));
    assert_eq!(whole(Family::V4, &bytes(UDP)[..19]), Err(WireError::Truncated));
    assert_eq!(whole(Family::V6, &bytes(UDP6)[..39]), Err(WireError::Truncated));
    // three bytes of UDP, one of ICMP, seven of a fragment header, an options header longer than the packet
    for (number, payload) in [
        (protocol::UDP, &[0, 1, 0][..]),
        (protocol::ICMPV6, &[128]),
        (44, &[17, 0, 0, 0, 0, 0, 0]),
        (60, &[17, 1, 1, 4, 0, 0, 0, 0]),
        (51, &[17]),
    ] {
        assert_eq!(whole(Family::V6, &ipv6(number, payload)), Err(WireError::Truncated), "header {number}");
    }
}

#[test]
fn every_kind_has_its_own_word() {
    let mut words: Vec<_> = WireError::ALL.iter().map(|kind| kind.name()).collect();
    for (index, kind) in WireError::ALL.into_iter().enumerate() {
        assert_eq!(kind as usize, index);
    }
    words.sort_unstable();
    words.dedup();
    assert_eq!(words.len(), WireError::ALL.len());
}
