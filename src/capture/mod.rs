//! Captured packets to the flows that policy is asked about.
//!
//! `file` reads frames, `link` finds the IP packet in one, [`wire`](crate::wire) reads it, `packet` says what it is
//! to conntrack, and `flows` puts it to its flow. Memory is bounded by the table of flows and a block of those that
//! are over.
//!
//! Nothing here panics, whatever the bytes.

pub mod file;
pub mod flows;
pub mod link;
pub mod packet;

use std::io::Read;

pub use file::CaptureError;
pub use flows::{Begin, Dnat, Flow};
pub use link::Way;

use crate::wire::{self, WireError};
use file::File;
use flows::{Captured, Flows};
use link::NoPacket;
use packet::Seen;

/// Packets that are read before anybody may look whether it is enough.
const STRIDE: usize = 1 << 14;

/// What has been read so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// All of them; each is in a flow or in one of the counters below.
    pub packets: u64,
    /// ARP and whatever else is not IP.
    pub not_ip: u64,
    /// Later fragments, which are judged with their first one.
    pub fragments: u64,
    /// Ended in the link layer's header.
    pub cut_link: u64,
    /// Could not be read, by [`WireError`].
    pub malformed: [u64; WireError::ALL.len()],
    /// Flows given out early because the table was full.
    pub evicted: u64,
}

/// A capture, read block by block.
pub struct Capture {
    file: File,
    flows: Flows,
    counters: Counters,
    is_read: bool,
    /// What ended the reading, told once all flows have been given.
    failure: Option<CaptureError>,
}

impl Capture {
    /// Reads what the file begins with; `most` flows are under way at a time, `is_complete` says that nothing was
    /// when the capture began, `dnat` where flows are sent on their way.
    ///
    /// # Errors
    /// It is no capture, or cannot be read.
    pub fn open(
        source: impl Read + Send + 'static,
        most: usize,
        is_complete: bool,
        dnat: Vec<Dnat>,
    ) -> Result<Self, CaptureError> {
        let flows = Flows::new(most, is_complete, dnat);
        let file = File::open(source)?;
        Ok(Self { file, flows, counters: Counters::default(), is_read: false, failure: None })
    }

    /// What has been read so far.
    pub fn counters(&self) -> Counters {
        Counters { evicted: self.flows.evicted(), ..self.counters }
    }

    /// Names of interfaces by number, where the file has them.
    pub fn interfaces(&self) -> &[Option<String>] {
        self.file.interfaces()
    }

    /// Whether the file ends inside a packet.
    pub const fn is_cut(&self) -> bool {
        self.file.is_cut()
    }

    /// Reads on and puts flows that are over into `into`, `most` of them or so; false if all have been given.
    ///
    /// It may give none although there are more to come, so that a long capture can be interrupted.
    ///
    /// # Errors
    /// The capture is damaged or cannot be read on; all flows that could be read have been given before.
    pub fn read(&mut self, most: usize, into: &mut Vec<Flow>) -> Result<bool, CaptureError> {
        for _ in 0..STRIDE {
            if self.is_read || self.flows.over().len() >= most {
                break;
            }
            let (flows, counters) = (&mut self.flows, &mut self.counters);
            match self.file.next(&mut |frame| see(frame, flows, counters)) {
                Ok(more) => self.is_read = !more,
                Err(error) => (self.is_read, self.failure) = (true, Some(error)),
            }
        }
        let room = most.saturating_sub(self.flows.over().len());
        let more = !self.is_read || self.flows.drain(room);
        into.append(self.flows.over());
        if more { Ok(true) } else { self.failure.take().map_or(Ok(false), Err) }
    }
}

fn see(frame: &file::Frame, flows: &mut Flows, counters: &mut Counters) {
    counters.packets += 1;
    let network = match link::strip(frame.link, frame.copied, frame.length) {
        Ok(network) => network,
        Err(NoPacket::NotIp) => return counters.not_ip += 1,
        Err(NoPacket::Truncated) => return counters.cut_link += 1,
    };
    let headers = match wire::headers(network.family, network.copied, network.length) {
        Ok(headers) => headers,
        Err(error) => return counters.malformed[error as usize] += 1,
    };
    let Some(seen) = Seen::of(&headers) else { return counters.fragments += 1 };
    let way = if frame.way == Way::Unknown { network.way } else { frame.way };
    let length = u64::try_from(network.length).unwrap_or(u64::MAX);
    flows.see(&seen, Captured { time: frame.time, length, interface: frame.interface, way });
}
