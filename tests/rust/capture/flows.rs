//! Packets to flows: direction, state, and what is over.

use labelgate::capture::packet::Key;
use labelgate::capture::{Begin, Capture, Dnat, Flow, Way};
use labelgate::flow::{CtState, Family, protocol};

use super::{bytes, flows_of, opened, pcap, read};

const CLIENT: u32 = 0x0a00_0001;
const SERVER: u32 = 0x0a00_0002;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const FIN: u8 = 0x01;
const RST: u8 = 0x04;

/// An IPv4 packet by hand, after RFC 791: 20 bytes of header, then this.
fn ip(number: u8, source: u32, destination: u32, payload: &[u8]) -> Vec<u8> {
    let mut packet = bytes("4500 0000 0000 4000 4000 0000");
    packet[2..4].copy_from_slice(&u16::try_from(20 + payload.len()).unwrap().to_be_bytes());
    packet[9] = number;
    packet.extend(source.to_be_bytes());
    packet.extend(destination.to_be_bytes());
    packet.extend(payload);
    packet
}

/// A TCP header by hand, after RFC 9293.
fn tcp((source, sport): (u32, u16), (destination, dport): (u32, u16), flags: u8) -> Vec<u8> {
    let mut header = vec![0; 20];
    header[..2].copy_from_slice(&sport.to_be_bytes());
    header[2..4].copy_from_slice(&dport.to_be_bytes());
    (header[12], header[13]) = (0x50, flags);
    ip(protocol::TCP, source, destination, &header)
}

fn there(flags: u8) -> Vec<u8> {
    tcp((CLIENT, 40000), (SERVER, 80), flags)
}

fn back(flags: u8) -> Vec<u8> {
    tcp((SERVER, 80), (CLIENT, 40000), flags)
}

fn udp(source: (u32, u16), destination: (u32, u16)) -> Vec<u8> {
    let ports = [source.1.to_be_bytes(), destination.1.to_be_bytes(), [0, 8], [0, 0]].concat();
    ip(protocol::UDP, source.0, destination.0, &ports)
}

/// An ICMP message by hand, after RFC 792: type, code, checksum, id, sequence, rest.
fn icmp(source: u32, destination: u32, kind: u8, id: u16, rest: &[u8]) -> Vec<u8> {
    let head = [&[kind, 0, 0, 0][..], &id.to_be_bytes(), &[0, 1], rest].concat();
    ip(protocol::ICMP, source, destination, &head)
}

fn flows(packets: &[Vec<u8>]) -> Vec<Flow> {
    read(&mut opened(&pcap(101, packets), false).unwrap())
}

fn complete(packets: &[Vec<u8>]) -> Vec<Flow> {
    read(&mut opened(&pcap(101, packets), true).unwrap())
}

fn ends(flow: &Flow) -> (u32, u16, u32, u16) {
    let Key { source, destination, source_port, destination_port, .. } = flow.key;
    (u32::try_from(source).unwrap(), source_port, u32::try_from(destination).unwrap(), destination_port)
}

const THERE: (u32, u16, u32, u16) = (CLIENT, 40000, SERVER, 80);
const BACK: (u32, u16, u32, u16) = (SERVER, 80, CLIENT, 40000);

#[test]
fn a_tcp_connection_is_one_flow() {
    let found =
        flows(&[there(SYN), back(SYN | ACK), there(ACK), there(ACK | FIN), back(ACK | FIN), there(ACK)]);
    assert_eq!(found.len(), 1);
    assert_eq!((ends(&found[0]), found[0].packets, found[0].bytes), (THERE, [4, 2], [160, 80]));
    assert_eq!((found[0].ct, found[0].begin, found[0].is_answered), (CtState::New, Begin::Known, true));
    assert_eq!((found[0].first, found[0].last), (1_000_000_000_000, 1_005_000_000_000));
}

#[test]
fn a_refusal_is_no_answer() {
    let found = flows(&[there(SYN), back(RST | ACK)]);
    assert_eq!((found.len(), found[0].packets, found[0].is_answered), (1, [1, 1], false));
}

#[test]
fn a_reply_tells_who_began() {
    let found = flows(&[back(SYN | ACK), there(ACK)]);
    assert_eq!((found.len(), ends(&found[0]), found[0].begin), (1, THERE, Begin::Known));
    assert_eq!(found[0].packets, [1, 1]);
}

#[test]
fn a_connection_without_beginning_has_no_direction() {
    let found = flows(&[back(ACK), there(ACK)]);
    assert_eq!((found.len(), found[0].begin, found[0].packets), (1, Begin::Unknown, [1, 1]));
}

/// As Linux has it: `nf_conntrack_tcp_loose` takes up a connection by an ACK, and nothing else.
#[test]
fn a_complete_capture_is_judged_as_conntrack_would() {
    let first = |packet| complete(&[packet]).remove(0);
    let states = [back(ACK), back(SYN | ACK), back(RST), back(FIN | ACK), back(0)].map(|packet| {
        let flow = first(packet);
        (ends(&flow), flow.ct, flow.begin)
    });
    let invalid = (BACK, CtState::Invalid, Begin::Known);
    assert_eq!(states, [(BACK, CtState::New, Begin::Known), invalid, invalid, invalid, invalid]);
}

#[test]
fn an_answer_tells_which_way_the_question_passed() {
    // Linux cooked, sent by the host itself.
    let outgoing = [bytes("0004 0304 0006 0000000000000000 0800"), back(SYN | ACK)].concat();
    let found = flows_of(&pcap(113, &[outgoing]));
    assert_eq!((ends(&found[0]), found[0].way), (THERE, Way::In));
}

#[test]
fn what_passes_behind_dnat_belongs_to_the_flow_ahead_of_it() {
    let node_port = Dnat {
        family: Family::V4,
        protocol: Some(protocol::TCP),
        of: (u128::from(SERVER), Some(80)),
        to: (u128::from(SERVER + 1), Some(8080)),
    };
    let all = Dnat {
        protocol: None,
        of: (u128::from(SERVER), None),
        to: (u128::from(SERVER + 2), None),
        ..node_port
    };
    let pod = (SERVER + 1, 8080);
    let packets = [
        there(SYN),
        tcp((CLIENT, 40000), pod, SYN),
        tcp(pod, (CLIENT, 40000), SYN | ACK),
        tcp((SERVER + 1, 8081), (CLIENT, 40000), SYN | ACK), // another port
        udp(pod, (CLIENT, 40000)),                           // another protocol
        udp((CLIENT, 1), (SERVER, 53)),
        udp((SERVER + 2, 53), (CLIENT, 1)),
        icmp(CLIENT, SERVER, 8, 7, &[]),
        icmp(SERVER + 2, CLIENT, 0, 7, &[]),
        tcp((CLIENT, 40001), pod, SYN), // straight, without a flow ahead of DNAT
    ];
    let file = std::io::Cursor::new(pcap(101, &packets));
    let mut capture = Capture::open(file, 1000, true, vec![node_port, all]).unwrap();
    let found = read(&mut capture);
    let seen: Vec<_> = found.iter().map(|flow| (flow.key.source, ends(flow).3, flow.packets)).collect();
    let (client, pod) = (u128::from(CLIENT), u128::from(SERVER + 1));
    assert_eq!(
        seen,
        [
            (client, 80, [2, 1]),
            (pod, 40000, [1, 0]),
            (pod, 40000, [1, 0]),
            (client, 53, [1, 1]),
            (client, 8 << 8, [1, 1]),
            (client, 8080, [1, 0]),
        ]
    );
}

#[test]
fn a_second_syn_begins_a_flow_only_when_the_first_is_over() {
    let found = flows(&[there(SYN), there(SYN), there(RST), there(SYN)]);
    assert_eq!(found.iter().map(|flow| flow.packets[0]).collect::<Vec<_>>(), [3, 1]);
}

/// As Linux has it: `nf_conntrack_tcp` goes to `SYN_SENT2`, and takes another connection only behind a close.
#[test]
fn a_syn_of_the_other_side_opens_the_same_connection_unless_it_is_open() {
    let found = flows(&[there(SYN), back(SYN), back(SYN), back(SYN | ACK), there(SYN | ACK)]);
    assert_eq!((found.len(), ends(&found[0]), found[0].packets), (1, THERE, [2, 3]));
    let ends_of = |packets: &[Vec<u8>]| flows(packets).iter().map(ends).collect::<Vec<_>>();
    assert_eq!(ends_of(&[there(SYN), back(SYN | ACK), back(SYN)]), [THERE, BACK]);
    assert_eq!(ends_of(&[there(SYN), back(RST | ACK), back(SYN)]), [THERE, BACK]);
}

#[test]
fn a_syn_ends_what_had_no_beginning() {
    let found = flows(&[there(ACK), there(SYN)]);
    assert_eq!(found.iter().map(|flow| flow.begin).collect::<Vec<_>>(), [Begin::Unknown, Begin::Known]);
}

#[test]
fn udp_has_the_direction_of_its_first_packet_until_it_is_forgotten() {
    let (client, server) = ((CLIENT, 40000), (SERVER, 53));
    let mut packets = vec![udp(client, server), udp(server, client)];
    let found = flows(&packets);
    assert_eq!((found.len(), ends(&found[0]).3, found[0].packets), (1, 53, [1, 1]));
    // Frames are a second apart: those of others fill the time.
    packets.extend(vec![there(ACK); 120]);
    packets.push(udp(server, client));
    let found: Vec<_> =
        flows(&packets).into_iter().filter(|flow| flow.key.protocol == protocol::UDP).collect();
    assert_eq!(found.iter().map(|flow| ends(flow).3).collect::<Vec<_>>(), [53, 40000]);
    packets.remove(2);
    packets.remove(2);
    let found = flows(&packets);
    assert_eq!(found.iter().filter(|flow| flow.key.protocol == protocol::UDP).count(), 1, "119 s");
}

#[test]
fn echo_and_reply_are_one_flow_of_the_request() {
    let found = flows(&[icmp(CLIENT, SERVER, 8, 7, &[]), icmp(SERVER, CLIENT, 0, 7, &[])]);
    assert_eq!((found.len(), ends(&found[0]), found[0].packets), (1, (CLIENT, 7, SERVER, 8 << 8), [1, 1]));
    let found = flows(&[icmp(SERVER, CLIENT, 0, 7, &[])]);
    assert_eq!((ends(&found[0]), found[0].ct), ((CLIENT, 7, SERVER, 8 << 8), CtState::New));
    let found = complete(&[icmp(SERVER, CLIENT, 0, 7, &[])]);
    assert_eq!((ends(&found[0]), found[0].ct), ((SERVER, 7, CLIENT, 0), CtState::Invalid));
}

/// A host may well take the id that another one has: some always take the same.
#[test]
fn a_request_the_other_way_is_a_flow_of_its_own() {
    let (request, reply) = (|from, to| icmp(from, to, 8, 1, &[]), |from, to| icmp(from, to, 0, 1, &[]));
    let found = flows(&[
        request(CLIENT, SERVER),
        reply(SERVER, CLIENT),
        request(SERVER, CLIENT),
        reply(CLIENT, SERVER),
        request(CLIENT, SERVER),
    ]);
    let seen: Vec<_> = found.iter().map(|flow| (flow.key.source, flow.packets, flow.is_answered)).collect();
    assert_eq!(seen, [(u128::from(SERVER), [1, 1], true), (u128::from(CLIENT), [2, 1], true)]);
}

/// RFC 4620: a query and its reply are tracked as an echo is.
#[test]
fn a_node_information_query_is_a_flow() {
    let message = |kind: u8, from: u8, to: u8| {
        let mut packet = bytes("6000 0000 0010 3aff");
        for last in [from, to] {
            packet.extend([0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
        }
        packet.extend([kind, 0, 0, 0, 0, 9, 0, 0]);
        packet.extend([0; 8]);
        packet
    };
    let found = flows(&[message(139, 1, 2), message(140, 2, 1)]);
    assert_eq!((found.len(), found[0].packets, found[0].ct), (1, [1, 1], CtState::New));
    assert_eq!(found[0].key.destination_port, 139 << 8);
}

#[test]
fn an_error_is_related_to_the_flow_that_it_is_about() {
    let query = udp((CLIENT, 40000), (SERVER, 53));
    let error = icmp(SERVER, CLIENT, 3, 0, &query);
    let states = |found: Vec<Flow>| found.iter().map(|flow| (flow.ct, flow.begin)).collect::<Vec<_>>();
    assert_eq!(
        states(flows(&[query, error.clone()])),
        [(CtState::New, Begin::Known), (CtState::Related, Begin::Known)]
    );
    assert_eq!(states(flows(std::slice::from_ref(&error))), [(CtState::Invalid, Begin::Orphan)]);
    assert_eq!(states(complete(&[error])), [(CtState::Invalid, Begin::Known)]);
}

#[test]
fn neighbour_discovery_is_not_tracked() {
    // `ndisc6 fe80::2 eth0`: a neighbour solicitation, checksum and options left out.
    let solicitation = bytes(
        "6000 0000 0018 3aff fe80 0000 0000 0000 0000 0000 0000 0001 ff02 0000 0000 0000 0000 0001 ff00 0002
         8700 0000 0000 0000 fe80 0000 0000 0000 0000 0000 0000 0002",
    );
    let found = flows(&[solicitation]);
    assert_eq!((found[0].key.family, found[0].ct), (Family::V6, CtState::Untracked));
    assert_eq!(found[0].key.destination_port, 135 << 8);
}

#[test]
fn later_fragments_are_counted_and_judged_with_their_first() {
    let mut first = udp((CLIENT, 40000), (SERVER, 53));
    first[6] = 0x20; // more fragments
    let mut later = first.clone();
    later[7] = 9;
    let mut capture = opened(&pcap(101, &[first, later]), false).unwrap();
    let found = read(&mut capture);
    assert_eq!((found.len(), found[0].packets, capture.counters().fragments), (1, [1, 0], 1));
}

#[test]
fn a_full_table_gives_out_the_flow_that_was_quiet_for_longest() {
    let flow = |port| udp((CLIENT, port), (SERVER, 53));
    let file = pcap(101, &[flow(1), flow(2), flow(1), flow(3)]);
    let mut capture = Capture::open(std::io::Cursor::new(file), 2, false, Vec::new()).unwrap();
    let found = read(&mut capture);
    let seen: Vec<_> = found.iter().map(|flow| (flow.key.source_port, flow.packets[0])).collect();
    assert_eq!((seen, capture.counters().evicted), (vec![(2, 1), (1, 2), (3, 1)], 1));
}
