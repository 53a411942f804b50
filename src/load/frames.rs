//! Ethernet frames with a UDP datagram inside.

use std::net::Ipv4Addr;

const UDP: u8 = 17;
const IPV4_HEADER: u16 = 20;
const UDP_HEADER: u16 = 8;

/// Whose frames they are and who takes them: MAC addresses.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// Sender.
    pub source: [u8; 6],
    /// Receiver.
    pub destination: [u8; 6],
}

/// Who sends a datagram to whom.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    /// Source address.
    pub source: Ipv4Addr,
    /// Source port.
    pub source_port: u16,
    /// Destination address.
    pub destination: Ipv4Addr,
    /// Destination port.
    pub port: u16,
}

/// A frame with `payload` zero bytes in its datagram, and no UDP checksum, as IPv4 permits.
pub fn udp_frame(link: Link, flow: &Flow, payload: u16) -> Vec<u8> {
    let udp_length = UDP_HEADER + payload;
    let header = ipv4_header(flow, IPV4_HEADER + udp_length);
    let mut frame = Vec::with_capacity(14 + usize::from(IPV4_HEADER + udp_length));
    frame.extend(link.destination);
    frame.extend(link.source);
    frame.extend([0x08, 0x00]);
    frame.extend(header);
    for number in [flow.source_port, flow.port, udp_length, 0] {
        frame.extend(number.to_be_bytes());
    }
    frame.resize(frame.len() + usize::from(payload), 0);
    frame
}

fn ipv4_header(flow: &Flow, length: u16) -> [u8; IPV4_HEADER as usize] {
    let mut header = [0; IPV4_HEADER as usize];
    header[0] = 0x45;
    header[2..4].copy_from_slice(&length.to_be_bytes());
    header[8] = 64; // hops
    header[9] = UDP;
    header[12..16].copy_from_slice(&flow.source.octets());
    header[16..20].copy_from_slice(&flow.destination.octets());
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    header
}

/// RFC 1071.
fn checksum(header: &[u8; IPV4_HEADER as usize]) -> u16 {
    let words = header.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !u16::try_from((folded & 0xffff) + (folded >> 16)).expect("ten words carry at most once more")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_what_the_flow_says() {
        let link = Link { source: [2, 0, 0, 0, 0, 1], destination: [2, 0, 0, 0, 0, 2] };
        let [source, destination] = [Ipv4Addr::new(10, 71, 255, 9), Ipv4Addr::new(10, 72, 0, 1)];
        let flow = Flow { source, source_port: 40_000, destination, port: 65_535 };
        let frame = udp_frame(link, &flow, 18);
        assert_eq!(frame[..14], [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0]);
        assert_eq!(frame.len(), 14 + 20 + 8 + 18);
        let (address, ports) = (&frame[26..34], &frame[34..38]);
        assert_eq!(address, [10, 71, 255, 9, 10, 72, 0, 1]);
        assert_eq!(ports, [0x9c, 0x40, 0xff, 0xff]);
        assert_eq!([&frame[16..18], &frame[38..40]], [[0, 46], [0, 26]], "lengths of both headers");
        let header: [u8; 20] = frame[14..34].try_into().expect("20 bytes");
        assert_eq!(checksum(&header), 0, "the sum over a header with its checksum");
    }
}
