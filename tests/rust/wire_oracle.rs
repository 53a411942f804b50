//! Random packets: the same five-tuple as etherparse reads, and no panic, whatever the bytes.

mod etherparse_oracle;

use etherparse_oracle::{AUTHENTICATION, oracle};
use labelgate::flow::{Family, protocol};
use labelgate::wire::{WireError, parse};
use proptest::collection::vec;
use proptest::prelude::*;

fn protocols() -> impl Strategy<Value = u8> {
    prop_oneof![
        6 => prop::sample::select(vec![
            protocol::TCP, protocol::UDP, protocol::SCTP, protocol::UDPLITE, protocol::ICMP, protocol::ICMPV6,
        ]),
        1 => prop::sample::select(vec![47, 50, 59, 89]),
    ]
}

/// Offset in units of 8 bytes, mostly none.
fn offsets() -> impl Strategy<Value = u16> {
    prop_oneof![3 => Just(0), 1 => 0..0x2000_u16]
}

prop_compose! {
    fn ipv4_packets()(
        protocol in protocols(),
        options in 0..=10_usize,
        offset in offsets(),
        addresses in any::<[u8; 8]>(),
        payload in vec(any::<u8>(), 0..64),
        padding in 0..8_usize,
    ) -> Vec<u8> {
        let header = 20 + options * 4;
        let total = u16::try_from(header + payload.len()).unwrap().to_be_bytes();
        let offset = offset.to_be_bytes();
        let mut packet = vec![
            0x40 | u8::try_from(header / 4).unwrap(), 0, total[0], total[1],
            0, 7, offset[0], offset[1], 64, protocol, 0, 0,
        ];
        packet.extend_from_slice(&addresses);
        packet.resize(header, 1);
        packet.extend_from_slice(&payload);
        packet.resize(packet.len() + padding, 0);
        packet
    }
}

#[derive(Clone, Debug)]
struct Extension {
    number: u8,
    /// Behind the next-header byte.
    rest: Vec<u8>,
}

fn extensions() -> impl Strategy<Value = Extension> {
    let sized = |number: u8, length: u8, bytes: usize| Extension {
        number,
        rest: [&[length][..], &vec![0; bytes - 2]].concat(),
    };
    prop_oneof![
        (prop::sample::select(vec![43_u8, 60]), 0..4_u8).prop_map(move |(number, length)| sized(
            number,
            length,
            (usize::from(length) + 1) * 8
        )),
        (1..5_u8).prop_map(move |length| sized(AUTHENTICATION, length, (usize::from(length) + 2) * 4)),
        (offsets(), any::<[u8; 4]>()).prop_map(|(offset, id)| Extension {
            number: 44,
            rest: [&[0][..], &(offset << 3).to_be_bytes(), &id].concat(),
        }),
    ]
}

prop_compose! {
    fn ipv6_packets()(
        hop_by_hop in prop::option::of(Just(Extension { number: 0, rest: vec![0, 1, 4, 0, 0, 0, 0] })),
        extensions in vec(extensions(), 0..4),
        protocol in protocols(),
        addresses in any::<[u8; 32]>(),
        payload in vec(any::<u8>(), 0..64),
    ) -> Vec<u8> {
        let chain: Vec<Extension> = hop_by_hop.into_iter().chain(extensions).collect();
        let mut body = Vec::new();
        for (index, extension) in chain.iter().enumerate() {
            body.push(chain.get(index + 1).map_or(protocol, |next| next.number));
            body.extend_from_slice(&extension.rest);
        }
        body.extend_from_slice(&payload);
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        let first = chain.first().map_or(protocol, |extension| extension.number);
        let mut packet = vec![0x60, 0, 0, 0, length[0], length[1], first, 64];
        packet.extend_from_slice(&addresses);
        packet.extend_from_slice(&body);
        packet
    }
}

fn packets() -> impl Strategy<Value = (Family, Vec<u8>)> {
    prop_oneof![
        ipv4_packets().prop_map(|packet| (Family::V4, packet)),
        ipv6_packets().prop_map(|packet| (Family::V6, packet)),
    ]
}

/// What etherparse reads, labelgate reads the same.
fn agrees(family: Family, packet: &[u8]) {
    if let Some(expected) = oracle(packet).filter(|tuple| tuple.family == family) {
        assert_eq!(parse(family, packet, packet.len()), Ok(expected));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn well_formed_packets_read_as_etherparse_reads_them((family, packet) in packets()) {
        agrees(family, &packet);
    }

    #[test]
    fn damaged_packets_read_as_etherparse_reads_them(
        (family, mut packet) in packets(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        for (index, byte) in damage {
            let index = index.index(packet.len());
            packet[index] = byte;
        }
        agrees(family, &packet);
    }

    /// A shorter copy of the same packet gives the same answer, or says that it is too short.
    #[test]
    fn a_copy_never_changes_the_answer((family, packet) in packets(), copied in any::<prop::sample::Index>()) {
        let copied = copied.index(packet.len() + 1);
        let partial = parse(family, &packet[..copied], packet.len());
        if partial != Err(WireError::NotCopied) {
            prop_assert_eq!(partial, parse(family, &packet, packet.len()));
        }
    }

    #[test]
    fn no_bytes_panic(bytes in vec(any::<u8>(), 0..160), length in prop_oneof![0..200_usize, any::<usize>()]) {
        for family in [Family::V4, Family::V6] {
            let _ = parse(family, &bytes, length);
        }
    }
}
