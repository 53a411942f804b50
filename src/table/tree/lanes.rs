//! What is done in many lanes at once, and how portable code does it.
#![expect(clippy::inline_always, reason = "as of walks")]

use super::image::{LANES, Line, Nets, Ranges, Services};
use super::walk::Key;

/// What can be done in many lanes at once.
pub trait Lanes {
    /// How many of the boundaries, biased and ascending, are below `key`, biased.
    fn below(boundaries: &Line, key: u32) -> usize;
    /// The lanes of the block whose rules hold the key, as bits; `outside` has the services that do not hold it.
    fn in_services(block: &Services, key: &Key, outside: &Line) -> u32;
    /// The lanes of the block whose rules hold the key, as bits.
    fn in_nets(block: &Nets, key: &Key) -> u32;
    /// As [`in_nets`](Self::in_nets).
    fn in_ranges(block: &Ranges, key: &Key) -> u32;
}

/// Portable lanes: plain loops over arrays that compilers turn into vectors.
#[derive(Debug)]
pub struct Scalar;

impl Lanes for Scalar {
    #[inline(always)]
    fn below(boundaries: &Line, key: u32) -> usize {
        boundaries
            .0
            .iter()
            .map(|&boundary| u32::from(boundary.cast_signed() < key.cast_signed()))
            .sum::<u32>() as usize
    }

    #[inline(always)]
    fn in_services([addresses, rest]: &Services, key: &Key, outside: &Line) -> u32 {
        lanes(|lane| {
            let word = rest.0[lane];
            let service = word as usize >> 6 & (Line::BITS - 1);
            let has_service = outside.0[service / 32] >> (service % 32) & 1 == 0;
            in_net(addresses.0[lane], key.source(), word >> 26)
                & in_net(addresses.0[LANES + lane], key.destination(), word & 63)
                & has_service
        })
    }

    #[inline(always)]
    fn in_nets([addresses, ports, rest]: &Nets, key: &Key) -> u32 {
        lanes(|lane| {
            let bytes = rest.0[lane];
            let is_protocol =
                key.protocol_above().wrapping_sub(bytes & 0xFF00) >> 8 & 0xFF <= bytes >> 16 & 0xFF;
            in_net(addresses.0[lane], key.source(), bytes >> 24)
                & in_net(addresses.0[LANES + lane], key.destination(), bytes & 0xFF)
                & in_ports(ports, lane, key)
                & is_protocol
        })
    }

    #[inline(always)]
    fn in_ranges([source, destination, ports, rest]: &Ranges, key: &Key) -> u32 {
        lanes(|lane| {
            let inside = |line: &Line, value: u32| value.wrapping_sub(line.0[lane]) <= line.0[LANES + lane];
            inside(source, key.source())
                & inside(destination, key.destination())
                & in_ports(ports, lane, key)
                & (key.protocol().wrapping_sub(rest.0[lane]) & 0xFFFF <= rest.0[lane] >> 16)
        })
    }
}

/// Whether a value is the address but for its last bits.
#[inline(always)]
fn in_net(address: u32, value: u32, last_bits: u32) -> bool {
    u64::from(address ^ value) >> last_bits == 0
}

/// Lanes for which this holds, as bits.
#[inline(always)]
fn lanes(holds: impl Fn(usize) -> bool) -> u32 {
    (0..LANES).fold(0, |bits, lane| bits | u32::from(holds(lane)) << lane)
}

/// Whether both ports of the key are in those of a lane.
#[inline(always)]
fn in_ports(ports: &Line, lane: usize, key: &Key) -> bool {
    let half = |shift: u32| {
        let low = ports.0[lane] >> shift;
        let span = ports.0[LANES + lane] >> shift & 0xFFFF;
        (key.ports() >> shift).wrapping_sub(low) & 0xFFFF <= span
    };
    half(0) & half(16)
}
