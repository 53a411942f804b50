//! File forms and link types.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use labelgate::capture::{CaptureError, Flow, Way};
use labelgate::flow::Family;

use super::{UDP, UDP6, bytes, flows_of, opened, pcap, read};

/// The flow of [`UDP`] or [`UDP6`], however it was captured.
fn assert_is_udp(flow: &Flow, family: Family) {
    let key = flow.key;
    assert_eq!((key.family, key.protocol, key.source_port, key.destination_port), (family, 17, 40000, 7001));
    let addresses = if family == Family::V4 { (0x7f00_0001, 0x7f00_0002) } else { (1, 1) };
    assert_eq!((key.source, key.destination), addresses);
    assert_eq!(flow.packets, [1, 0]);
}

/// One packet behind this header, as IPv4 and as IPv6 where the header can say so.
fn assert_link(link: u32, v4: Option<&str>, v6: Option<&str>) -> Vec<Flow> {
    let cases = [(v4, UDP, Family::V4), (v6, UDP6, Family::V6)];
    let mut found = Vec::new();
    for (header, packet, family) in cases {
        let Some(header) = header else { continue };
        let frame = [bytes(header), bytes(packet)].concat();
        let flows = flows_of(&pcap(link, &[frame]));
        assert_eq!(flows.len(), 1, "link type {link}");
        assert_is_udp(&flows[0], family);
        found.extend(flows);
    }
    found
}

const MACS: &str = "0000 0000 0000 0000 0000 0000";

#[test]
fn ethernet() {
    assert_link(1, Some(&format!("{MACS} 0800")), Some(&format!("{MACS} 86dd")));
}

#[test]
fn ethernet_with_vlan_tags() {
    assert_link(
        1,
        Some(&format!("{MACS} 8100 0064 0800")),
        Some(&format!("{MACS} 88a8 0064 8100 0065 86dd")),
    );
}

#[test]
fn more_vlan_tags_than_anybody_stacks_are_not_ip() {
    let frame = bytes(&format!("{MACS} {} 0800 {UDP}", "8100 0064 ".repeat(5)));
    let mut capture = opened(&pcap(1, &[frame]), false).unwrap();
    assert_eq!(read(&mut capture), []);
    assert_eq!(capture.counters().not_ip, 1);
}

#[test]
fn raw_ip() {
    for link in [12, 14, 101] {
        assert_link(link, Some(""), Some(""));
    }
    assert_link(228, Some(""), None);
    assert_link(229, None, Some(""));
}

#[test]
fn loopback_of_bsd_in_either_order() {
    assert_link(0, Some("02000000"), Some("1e000000"));
    assert_link(108, Some("00000002"), Some("00000018"));
}

/// `tcpdump -i any -y LINUX_SLL`: packet type, hardware type, length of address, address, protocol.
#[test]
fn linux_cooked() {
    let flows = assert_link(
        113,
        Some("0000 0304 0006 0000000000000000 0800"),
        Some("0004 0304 0006 0000000000000000 86dd"),
    );
    assert_eq!(flows.iter().map(|flow| flow.way).collect::<Vec<_>>(), [Way::In, Way::Out]);
}

/// `tcpdump -i any`: protocol, reserved, interface, hardware type, packet type, length of address, address.
#[test]
fn linux_cooked_v2() {
    let flows = assert_link(
        276,
        Some("0800 0000 00000001 0304 00 06 0000000000000000"),
        Some("86dd 0000 00000001 0304 04 06 0000000000000000"),
    );
    assert_eq!(flows.iter().map(|flow| flow.way).collect::<Vec<_>>(), [Way::In, Way::Out]);
}

#[test]
fn an_unknown_link_type_is_refused() {
    let mut capture = opened(&pcap(105, &[bytes(UDP)]), false).unwrap();
    let error = capture.read(1, &mut Vec::new()).unwrap_err();
    assert!(matches!(error, CaptureError::Link(105)), "{error}");
}

/// As `file format` says of a machine of the other order, with nanoseconds: magic `a1b23c4d`.
const BIG_ENDIAN_NANOSECONDS: &str =
    "a1b23c4d 0002 0004 00000000 00000000 00040000 00000065  00000001 00000002 00000021 00000021";

#[test]
fn big_endian_with_nanoseconds() {
    let flows = flows_of(&bytes(&format!("{BIG_ENDIAN_NANOSECONDS} {UDP}")));
    assert_is_udp(&flows[0], Family::V4);
    assert_eq!(flows[0].first, 1_000_000_002);
}

fn gzip(file: &[u8]) -> Vec<u8> {
    let mut writer = GzEncoder::new(Vec::new(), Compression::fast());
    writer.write_all(file).unwrap();
    writer.finish().unwrap()
}

#[test]
fn gzip_in_one_part_or_several() {
    let file = pcap(101, &[bytes(UDP), bytes(UDP6)]);
    assert_eq!(flows_of(&gzip(&file)), flows_of(&file));
    let (head, tail) = file.split_at(30);
    assert_eq!(flows_of(&[gzip(head), gzip(tail)].concat()), flows_of(&file));
}

#[test]
fn damaged_gzip_is_an_error_after_what_could_be_read() {
    let mut file = gzip(&pcap(101, &[bytes(UDP), bytes(UDP6)]));
    let last = file.len() - 6;
    file[last] ^= 0xff; // in the checksum
    let mut capture = opened(&file, false).unwrap();
    let mut flows = Vec::new();
    assert!(capture.read(16, &mut flows).unwrap(), "there is an error to come");
    assert_eq!((flows.len(), capture.counters().packets), (2, 2));
    let error = capture.read(16, &mut flows).unwrap_err();
    assert!(matches!(error, CaptureError::Io(_)), "{error}");
    assert_eq!((flows.len(), capture.read(16, &mut flows).unwrap()), (2, false));
}

/// By hand after draft-ietf-opsawg-pcapng: section, interface `eth7` (raw IP, nanoseconds, snaplen 65535), packet with
/// `epb_flags` outbound, simple packet, and the packet as it was written before 2009.
fn pcapng(is_big: bool) -> Vec<u8> {
    let word = |value: u32| if is_big { value.to_be_bytes() } else { value.to_le_bytes() };
    let short = |value: u16| if is_big { value.to_be_bytes() } else { value.to_le_bytes() };
    let block = |kind: u32, body: Vec<u8>| {
        let length = word(u32::try_from(body.len() + 12).unwrap());
        [&word(kind)[..], &length, &body, &length].concat()
    };
    let option = |code: u16, value: &[u8]| {
        let padding = vec![0; value.len().next_multiple_of(4) - value.len()];
        [&short(code)[..], &short(u16::try_from(value.len()).unwrap()), value, &padding].concat()
    };
    let section = [&word(0x1a2b_3c4d)[..], &short(1), &short(0), &[0xff; 8]].concat();
    let interface =
        [short(101).to_vec(), short(0).to_vec(), word(65535).to_vec(), option(2, b"eth7"), option(9, &[9])];
    let (udp, udp6) = (bytes(UDP), bytes(UDP6));
    let length = word(u32::try_from(udp.len()).unwrap());
    let enhanced = [&word(0)[..], &word(1), &word(7), &length, &length, &udp, &[0; 3], &option(2, &word(2))];
    let old = [&short(0)[..], &short(3), &word(1), &word(8), &length, &length, &udp, &[0; 3]];
    let simple = [&word(u32::try_from(udp6.len()).unwrap())[..], &udp6, &[0; 3]];
    [
        block(0x0a0d_0d0a, section),
        block(1, interface.concat()),
        block(6, enhanced.concat()),
        block(0x0bad, vec![0; 8]), // of a kind that nobody knows
        block(3, simple.concat()),
        block(2, old.concat()),
    ]
    .concat()
}

#[test]
fn pcapng_in_either_order() {
    for is_big in [false, true] {
        let mut capture = opened(&pcapng(is_big), false).unwrap();
        let mut flows = read(&mut capture);
        flows.sort_by_key(|flow| flow.key.family == Family::V6);
        assert_eq!((flows[0].packets, flows[0].last - flows[0].first), ([2, 0], 1));
        let (key, ports) = (flows[0].key, (40000, 7001));
        assert_eq!((key.source, (key.source_port, key.destination_port)), (0x7f00_0001, ports));
        assert_eq!((flows[0].first, flows[0].way, flows[0].interface), ((1 << 32) + 7, Way::Out, 0));
        assert_is_udp(&flows[1], Family::V6);
        assert_eq!(capture.interfaces(), [Some("eth7".to_owned())]);
    }
}

#[test]
fn a_second_section_has_interfaces_of_its_own() {
    let flows = flows_of(&[pcapng(false), pcapng(true)].concat());
    assert_eq!(flows.iter().map(|flow| flow.packets[0]).collect::<Vec<_>>(), [2, 4]);
}

/// An interface (raw IP) with this name, as a block of a little-endian section.
fn interface(name: &[u8]) -> Vec<u8> {
    let padded = name.len().next_multiple_of(4);
    let length = u32::try_from(28 + padded).unwrap().to_le_bytes();
    let mut block = [&1u32.to_le_bytes(), &length[..], &[101, 0, 0, 0, 0, 0, 0, 0, 2, 0]].concat();
    block.extend(u16::try_from(name.len()).unwrap().to_le_bytes());
    block.extend(name);
    block.resize(20 + padded, 0);
    block.extend([0; 4]);
    block.extend(length);
    block
}

fn section() -> Vec<u8> {
    pcapng(false)[..28].to_vec()
}

#[test]
fn as_many_interfaces_as_a_machine_may_have() {
    let names = |numbers: std::ops::Range<u32>| -> Vec<u8> {
        numbers.flat_map(|number| interface(format!("veth{number}").as_bytes())).collect()
    };
    let most = [section(), names(0..65_536)].concat();
    let mut capture = opened(&most, false).unwrap();
    assert_eq!(read(&mut capture), []);
    assert_eq!(capture.interfaces().len(), 65_536);
    assert_eq!(capture.interfaces()[65_535].as_deref(), Some("veth65535"));
    // One more: of the section, or of another section with a new name; a known name is none more.
    for (more, is_read) in [
        (names(0..1), false),
        ([section(), names(65_536..65_537)].concat(), false),
        ([section(), names(7..8)].concat(), true),
    ] {
        let mut capture = opened(&[most.clone(), more].concat(), false).unwrap();
        let found = capture.read(usize::MAX, &mut Vec::new());
        assert_eq!(found.is_ok(), is_read);
        assert!(found.err().is_none_or(|error| error.to_string().contains("more than 65,536 interfaces")));
    }
}

#[test]
fn a_name_longer_than_any_is_none() {
    for (length, is_name) in [(256, true), (257, false)] {
        let mut capture = opened(&[section(), interface(&vec![b'e'; length])].concat(), false).unwrap();
        assert_eq!(read(&mut capture), []);
        assert_eq!(capture.interfaces()[0].is_some(), is_name);
    }
}

#[test]
fn a_packet_of_no_interface_is_damage() {
    let file = pcapng(false);
    let without = [&file[..28], &file[28 + 40..]].concat();
    let error = opened(&without, false).unwrap().read(16, &mut Vec::new()).unwrap_err();
    assert!(matches!(error, CaptureError::Broken { at: 28, .. }), "{error}");
}

#[test]
fn a_block_shorter_than_any_is_damage() {
    for (is_big, length) in [(false, 0_u32), (false, 4), (false, 11), (true, 0), (true, 4), (true, 11)] {
        let words =
            [0x8000_0001, length, length].map(if is_big { u32::to_be_bytes } else { u32::to_le_bytes });
        let before = pcapng(is_big);
        let file = [&before, words.as_flattened()].concat();
        let mut capture = opened(&file, false).unwrap();
        let error = (0..4).find_map(|_| capture.read(usize::MAX, &mut Vec::new()).err());
        assert!(matches!(error, Some(CaptureError::Broken { at, .. }) if at == before.len()), "{error:?}");
    }
    // In pcap the same words are a time.
    let mut file = pcap(101, &[bytes(UDP)]);
    file[24..28].copy_from_slice(&0x8000_0001_u32.to_le_bytes());
    assert_eq!(flows_of(&file).len(), 1);
}

#[test]
fn what_is_no_capture_is_refused() {
    assert!(matches!(opened(b"\x1f\x8b", false).err(), Some(CaptureError::Io(_))), "gzip that ends at once");
    for file in [&b""[..], b"src,dst\n10.0.0.1,10.0.0.2\n", &[0xd4, 0xc3, 0xb2]] {
        assert!(matches!(opened(file, false).err(), Some(CaptureError::Format)), "{file:?}");
    }
}

#[test]
fn a_file_that_ends_in_a_packet_is_read_so_far() {
    let whole = pcap(101, &[bytes(UDP), bytes(UDP6)]);
    let mut capture = opened(&whole[..whole.len() - 1], false).unwrap();
    let flows = read(&mut capture);
    assert_eq!((flows.len(), capture.is_cut()), (1, true));
    let mut capture = opened(&whole, false).unwrap();
    read(&mut capture);
    assert!(!capture.is_cut());
}

#[test]
fn a_packet_that_is_longer_than_the_buffer() {
    let mut long = bytes(UDP);
    long.resize(1 << 19, 0);
    let mut file = pcap(101, &[bytes(UDP), long, bytes(UDP6)]);
    file[16..20].copy_from_slice(&(1_u32 << 19).to_le_bytes()); // Its snaplen.
    let flows = flows_of(&file);
    assert_eq!(flows.iter().map(|flow| flow.packets[0]).collect::<Vec<_>>(), [2, 1]);
}

#[test]
fn a_length_that_no_packet_has_is_damage() {
    let mut file = pcap(101, &[bytes(UDP)]);
    file[32..36].copy_from_slice(&u32::MAX.to_le_bytes());
    for length in [1 << 25, file.len()] {
        file.resize(length, 0);
        let error = opened(&file, false).unwrap().read(16, &mut Vec::new()).unwrap_err();
        assert!(matches!(error, CaptureError::Broken { at: 24, .. }), "{error}");
    }
}

/// The file is shorter than what it says of the next packet: that is no packet, and the file does not end in one.
#[test]
fn a_length_that_no_packet_has_is_damage_in_a_short_file() {
    let damage = |file: &[u8], length_at: usize, length: u32, is_big: bool| {
        let mut file = file.to_vec();
        let word = if is_big { length.to_be_bytes() } else { length.to_le_bytes() };
        file[length_at..length_at + 4].copy_from_slice(&word);
        let mut capture = opened(&file, false).unwrap();
        let error = (0..4).find_map(|_| capture.read(usize::MAX, &mut Vec::new()).err());
        error.map(|error| matches!(error, CaptureError::Broken { .. }))
    };
    let file = pcap(101, &[bytes(UDP), bytes(UDP6)]);
    let second = 24 + 16 + bytes(UDP).len() + 8;
    assert_eq!(damage(&file, second, 0x00ff_ff00, false), Some(true));
    assert_eq!(damage(&file, second, (1 << 18) + 1, false), Some(true));
    assert_eq!(damage(&file, second, 1 << 18, false), None, "ends inside one");
    for is_big in [false, true] {
        assert_eq!(damage(&pcapng(is_big), 28 + 4, u32::MAX, is_big), Some(true));
    }
}

#[test]
fn what_is_damaged_later_is_read_so_far() {
    let mut file = [pcap(101, &[bytes(UDP), bytes(UDP6)]), vec![0xff; 1 << 23]].concat();
    for most in [1, 2, 16] {
        let mut capture = opened(&file, false).unwrap();
        let (mut flows, mut calls) = (Vec::new(), 0);
        let error = loop {
            match capture.read(most, &mut flows) {
                Ok(true) => calls += 1,
                Ok(false) => panic!("the damage is told"),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, CaptureError::Broken { .. }), "{error}");
        assert_eq!((flows.len(), capture.counters().packets, calls > 0), (2, 2, true));
    }
    file.truncate(24);
    assert_eq!(flows_of(&file), []);
}

/// `tcpdump -s 60`: the ports are there, the rest is not. With `-s 20` they are not.
#[test]
fn a_short_snaplen() {
    let cut = |length: usize| {
        let mut file = pcap(101, &[bytes(UDP)]);
        file.truncate(40 + length);
        file[32..36].copy_from_slice(&u32::try_from(length).unwrap().to_le_bytes());
        let mut capture = opened(&file, false).unwrap();
        (read(&mut capture).len(), capture.counters())
    };
    let (flows, counters) = cut(24);
    assert_eq!((flows, counters.malformed), (1, [0; 6]));
    let (flows, counters) = cut(20);
    assert_eq!((flows, counters.malformed), (0, [0, 0, 0, 0, 1, 0]), "not copied");
}

/// ARP: `arping 127.0.0.2`; then a frame that ends in its header.
#[test]
fn what_is_no_ip_is_counted() {
    let arp = bytes(&format!("{MACS} 0806 0001 0800 0604 0001"));
    let mut capture = opened(&pcap(1, &[arp, bytes(MACS)]), false).unwrap();
    assert_eq!(read(&mut capture), []);
    let counters = capture.counters();
    assert_eq!((counters.packets, counters.not_ip, counters.cut_link), (2, 1, 1));
}
