//! Capture files: pcap and pcapng, plain or gzip, as frames with their link type and time.

use std::collections::HashMap;
use std::io::{self, BufReader, Read};
use std::sync::{Arc, Mutex, PoisonError};

use flate2::read::MultiGzDecoder;
use pcap_parser::pcapng::{Block, InterfaceDescriptionBlock, OptionCode};
use pcap_parser::traits::{PcapNGPacketBlock, PcapReaderIterator};
use pcap_parser::{PcapBlockOwned, PcapError, PcapHeader, create_reader};
use thiserror::Error;

use super::link::Way;

/// Read at once; grows up to [`MOST_BYTES`] for a longer block.
const BUFFER: usize = 1 << 18;
/// No block is as long.
const MOST_BYTES: usize = 1 << 22;
/// Bytes of a packet that a file has at most unless its header says more, as libpcap has it (`MAXIMUM_SNAPLEN`).
const LONGEST_PACKET: usize = 1 << 18;
/// Interfaces of a section, and names of a file. A file that has more is made to fill memory.
const MOST_INTERFACES: usize = 1 << 16;
/// Bytes; Linux has names of 15. A longer one is no name.
const LONGEST_NAME: usize = 256;
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// What a file of pcapng begins with.
const SECTION: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];
/// A packet in a block of pcapng as it was before 2009.
const PACKET: u32 = 2;
/// A block of pcapng about a process.
const PROCESS: u32 = 0x8000_0001;
/// Of blocks of pcapng, bytes: type, and length at both ends.
const SHORTEST: u32 = 12;
const NANOSECONDS: u64 = 1_000_000_000;

/// Why a capture cannot be read, or not to its end.
#[derive(Debug, Error)]
pub enum CaptureError {
    /// The file begins with something else.
    #[error("found neither pcap nor pcapng (plain or gzip)")]
    Format,
    /// Frames of an interface are in a form that nobody here knows.
    #[error("link type {0} is not read; expected Ethernet, raw IP, Linux cooked (v1, v2) or loopback")]
    Link(u16),
    /// The file is damaged from here on.
    #[error("byte {at} (uncompressed): the file is damaged: {what}")]
    Broken {
        /// Bytes before the block that cannot be read.
        at: usize,
        /// What was found there.
        what: String,
    },
    /// The file cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// One frame of a capture.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Link type of the interface that it was captured on.
    pub link: u16,
    /// What was captured of it.
    pub copied: &'a [u8],
    /// The whole frame in bytes.
    pub length: usize,
    /// Nanoseconds since 1970.
    pub time: u64,
    /// Its row in [`File::interfaces`].
    pub interface: u32,
    /// As the block says (`epb_flags`).
    pub way: Way,
}

/// An interface that frames were captured on.
#[derive(Clone, Copy, Debug)]
struct Interface {
    link: u16,
    /// Time units in a second.
    resolution: u64,
    /// Seconds to be added.
    offset: i64,
    snaplen: usize,
    /// Its row among the names.
    name: u32,
}

/// What a file has told so far of how it is to be read.
#[derive(Default)]
struct Told {
    /// Numbers of the current section have their upper bytes first.
    is_big: bool,
    /// Bytes that a packet of pcap, or a block of pcapng, may have.
    longest: usize,
    /// The interfaces of the current section, by number.
    section: Vec<Interface>,
    /// Of all interfaces of the file.
    names: Vec<Option<String>>,
    /// Where each name is among them.
    rows: HashMap<Option<String>, u32>,
}

impl Told {
    fn add(&mut self, interface: Interface, name: Option<String>, at: usize) -> Result<(), CaptureError> {
        super::link::is_known(interface.link).then_some(()).ok_or(CaptureError::Link(interface.link))?;
        let is_full = self.names.len() >= MOST_INTERFACES && !self.rows.contains_key(&name);
        if is_full || self.section.len() >= MOST_INTERFACES {
            return Err(broken(at, "found more than 65,536 interfaces"));
        }
        let next = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        let row = *self.rows.entry(name).or_insert_with_key(|name| {
            self.names.push(name.clone());
            next
        });
        self.section.push(Interface { name: row, ..interface });
        Ok(())
    }

    /// The parser has read the type as if its lower bytes were first.
    fn is_packet(&self, kind: u32) -> bool {
        order(self.is_big)(kind.to_le_bytes()) == PACKET
    }

    /// A frame of a numbered interface, with the halves of its time stamp, its length and what was captured of it.
    fn frame<'a>(
        &self,
        number: u32,
        [high, low]: [u32; 2],
        (stated, copied): (u32, &'a [u8]),
        way: Way,
        at: usize,
    ) -> Result<Frame<'a>, CaptureError> {
        let number = usize::try_from(number).unwrap_or(usize::MAX);
        let interface = self.section.get(number).ok_or_else(|| broken(at, "names no interface"))?;
        let units = u64::from(high) << 32 | u64::from(low);
        let (seconds, rest) = (units / interface.resolution, units % interface.resolution);
        Ok(Frame {
            link: interface.link,
            copied,
            length: length(stated, copied),
            time: time(seconds.saturating_add_signed(interface.offset), rest, interface.resolution),
            interface: interface.name,
            way,
        })
    }
}

/// The "Packet Block", which writers before 2009 used; draft-ietf-opsawg-pcapng, appendix A.
struct OldPacket<'a> {
    interface: u32,
    stamp: [u32; 2],
    lengths: (u32, &'a [u8]),
}

impl<'a> OldPacket<'a> {
    fn of(body: &'a [u8], is_big: bool) -> Option<Self> {
        let (head, rest) = body.split_first_chunk::<20>()?;
        let (words, _) = head.as_chunks::<4>();
        let word = |at: usize| order(is_big)(words[at]);
        // Two numbers of 16 bits: the interface, and how many packets were lost.
        let interface = if is_big { word(0) >> 16 } else { word(0) & 0xffff };
        let copied = rest.get(..usize::try_from(word(3)).ok()?)?;
        Some(Self { interface, stamp: [word(1), word(2)], lengths: (word(4), copied) })
    }
}

const fn order(is_big: bool) -> fn([u8; 4]) -> u32 {
    if is_big { u32::from_be_bytes } else { u32::from_le_bytes }
}

/// A capture file, read from its beginning.
pub struct File {
    reader: Box<dyn PcapReaderIterator + Send>,
    /// pcapng, which is made of blocks.
    is_blocks: bool,
    failure: Failure,
    told: Told,
    /// Bytes of the block that was given last.
    given: usize,
    is_cut: bool,
}

impl File {
    /// Reads what the file begins with.
    ///
    /// # Errors
    /// It is no capture, or cannot be read.
    pub fn open(source: impl Read + Send + 'static) -> Result<Self, CaptureError> {
        let failure = Failure::default();
        let source = plain(source, &failure)?;
        let reader = create_reader(BUFFER, source).map_err(|_| failure.take_or(CaptureError::Format))?;
        let is_blocks = reader.data().starts_with(&SECTION);
        Ok(Self { reader, is_blocks, failure, told: Told::default(), given: 0, is_cut: false })
    }

    /// Names of interfaces by number, where the file has them.
    pub fn interfaces(&self) -> &[Option<String>] {
        &self.told.names
    }

    /// Whether the file ends inside a packet: whoever captured was killed, or still is at it.
    pub const fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// Has `look` see the next frame; false at the end.
    ///
    /// # Errors
    /// The file is damaged here, or cannot be read; there is nothing behind it.
    pub fn next(&mut self, look: &mut impl FnMut(&Frame)) -> Result<bool, CaptureError> {
        loop {
            self.reader.consume(std::mem::take(&mut self.given));
            let at = self.reader.consumed();
            if self.is_too_short() {
                return Err(broken(at, "found no block of a capture"));
            }
            if self.is_too_long() {
                return Err(broken(at, "found a packet longer than any"));
            }
            match self.reader.next() {
                Ok((length, block)) => {
                    self.given = length;
                    if read_block(block, &mut self.told, look, at)? {
                        return Ok(true);
                    }
                }
                Err(PcapError::Eof) => return self.failure.or_end(),
                Err(PcapError::UnexpectedEof) => {
                    self.is_cut = true;
                    return self.failure.or_end();
                }
                Err(PcapError::Incomplete(_)) => {
                    self.reader.refill().map_err(|_| self.failure.take_or(broken(at, "cannot be read")))?;
                }
                Err(PcapError::BufferTooSmall) => self.grow(at)?,
                Err(PcapError::ReadError) => return Err(self.failure.take_or(broken(at, "cannot be read"))),
                Err(_) => return Err(broken(at, "found no block of a capture")),
            }
        }
    }

    /// Whether the next block is shorter than any: of this kind the parser takes its length for right, and subtracts.
    /// In the other byte order such a length is that of no block either.
    fn is_too_short(&self) -> bool {
        let ([kind, length, ..], _) = self.reader.data().as_chunks() else { return false };
        let is_so = |read: fn([u8; 4]) -> u32| read(*kind) == PROCESS && read(*length) < SHORTEST;
        self.is_blocks && [false, true].map(order).into_iter().any(is_so)
    }

    /// Whether what comes next says that it is longer than any: not to be waited for, as the file may end before.
    fn is_too_long(&self) -> bool {
        let data = self.reader.data();
        let at = if self.is_blocks { 4 } else { 8 };
        let length = data.get(at..).and_then(|rest| rest.first_chunk());
        // A section says itself which bytes of its numbers come first.
        let is_known = self.told.longest > 0 && !(self.is_blocks && data.starts_with(&SECTION));
        let longest = u32::try_from(self.told.longest).unwrap_or(u32::MAX);
        is_known && length.is_some_and(|&length| order(self.told.is_big)(length) > longest)
    }

    /// For a block that does not fit.
    fn grow(&mut self, at: usize) -> Result<(), CaptureError> {
        let size = self.reader.data().len().max(BUFFER) * 2;
        if size > MOST_BYTES || !self.reader.grow(size) {
            return Err(broken(at, "found a packet longer than any"));
        }
        self.reader.refill().map_err(|_| self.failure.take_or(broken(at, "cannot be read")))
    }
}

fn broken(at: usize, what: &str) -> CaptureError {
    CaptureError::Broken { at, what: what.to_owned() }
}

/// Whether the block was a frame.
fn read_block(
    block: PcapBlockOwned<'_>,
    told: &mut Told,
    look: &mut impl FnMut(&Frame),
    at: usize,
) -> Result<bool, CaptureError> {
    match block {
        PcapBlockOwned::LegacyHeader(header) => {
            told.is_big = header.is_bigendian();
            let snaplen = usize::try_from(header.snaplen).unwrap_or(usize::MAX);
            told.longest = snaplen.clamp(LONGEST_PACKET, MOST_BYTES);
            told.add(of_header(&header), None, at)?;
        }
        PcapBlockOwned::Legacy(packet) => {
            let interface = told.section.first().ok_or_else(|| broken(at, "found a packet ahead of all"))?;
            look(&Frame {
                link: interface.link,
                copied: packet.data,
                length: length(packet.origlen, packet.data),
                time: time(u64::from(packet.ts_sec), u64::from(packet.ts_usec), interface.resolution),
                interface: interface.name,
                way: Way::Unknown,
            });
            return Ok(true);
        }
        PcapBlockOwned::NG(Block::SectionHeader(header)) => {
            (told.is_big, told.longest) = (header.big_endian(), MOST_BYTES);
            told.section.clear();
        }
        PcapBlockOwned::NG(Block::InterfaceDescription(block)) => {
            let name = block.if_name().and_then(Result::ok).map(str::to_owned);
            let name = name.filter(|name| (1..=LONGEST_NAME).contains(&name.len()));
            told.add(of_description(&block), name, at)?;
        }
        PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
            let stamp = [packet.ts_high, packet.ts_low];
            let lengths = (packet.origlen, packet.packet_data());
            look(&told.frame(packet.if_id, stamp, lengths, way_of(&packet), at)?);
            return Ok(true);
        }
        PcapBlockOwned::NG(Block::Unknown(block)) if told.is_packet(block.block_type) => {
            let packet =
                OldPacket::of(block.data, told.is_big).ok_or_else(|| broken(at, "found half a packet"))?;
            look(&told.frame(packet.interface, packet.stamp, packet.lengths, Way::Unknown, at)?);
            return Ok(true);
        }
        PcapBlockOwned::NG(Block::SimplePacket(packet)) => {
            let interface = told.section.first().ok_or_else(|| broken(at, "names no interface"))?;
            let whole = packet.packet_data();
            let copied = whole.get(..interface.snaplen).unwrap_or(whole);
            let length = length(packet.origlen, copied);
            look(&Frame {
                link: interface.link,
                copied,
                length,
                time: 0,
                interface: interface.name,
                way: Way::Unknown,
            });
            return Ok(true);
        }
        PcapBlockOwned::NG(_) => {}
    }
    Ok(false)
}

fn of_header(header: &PcapHeader) -> Interface {
    let resolution = if header.is_nanosecond_precision() { NANOSECONDS } else { 1_000_000 };
    let [low, high, ..] = header.network.0.to_le_bytes(); // Above are flags about a checksum of the link layer.
    Interface { link: u16::from_le_bytes([low, high]), resolution, offset: 0, snaplen: usize::MAX, name: 0 }
}

fn of_description(block: &InterfaceDescriptionBlock<'_>) -> Interface {
    let power = u32::from(block.if_tsresol & 0x7f);
    let base: u64 = if block.if_tsresol & 0x80 == 0 { 10 } else { 2 };
    let snaplen = usize::try_from(block.snaplen).unwrap_or(usize::MAX);
    Interface {
        link: u16::try_from(block.linktype.0).unwrap_or(u16::MAX),
        resolution: base.checked_pow(power).unwrap_or(u64::MAX),
        offset: block.if_tsoffset,
        snaplen: if snaplen == 0 { usize::MAX } else { snaplen },
        name: 0,
    }
}

/// Bits 0 and 1 of `epb_flags`.
fn way_of(packet: &pcap_parser::pcapng::EnhancedPacketBlock<'_>) -> Way {
    let flags = packet.options.iter().find(|option| option.code == OptionCode(2));
    let word = flags.and_then(|flags| flags.as_bytes().ok()).and_then(|bytes| bytes.first_chunk::<4>());
    let bits = match word {
        Some(&word) if packet.big_endian() => u32::from_be_bytes(word),
        Some(&word) => u32::from_le_bytes(word),
        None => 0,
    };
    match bits & 3 {
        1 => Way::In,
        2 => Way::Out,
        _ => Way::Unknown,
    }
}

/// A frame is never shorter than what was captured of it.
fn length(stated: u32, copied: &[u8]) -> usize {
    usize::try_from(stated).unwrap_or(usize::MAX).max(copied.len())
}

fn time(seconds: u64, units: u64, resolution: u64) -> u64 {
    let rest = u128::from(units) * u128::from(NANOSECONDS) / u128::from(resolution.max(1));
    seconds.saturating_mul(NANOSECONDS).saturating_add(u64::try_from(rest).unwrap_or(u64::MAX))
}

/// What reading has failed with: the parser of captures says only that it has.
#[derive(Clone, Default)]
struct Failure(Arc<Mutex<Option<io::Error>>>);

impl Failure {
    fn put(&self, error: io::Error) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }

    fn take(&self) -> Option<io::Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn take_or(&self, other: CaptureError) -> CaptureError {
        self.take().map_or(other, CaptureError::Io)
    }

    /// The end of a file that could be read so far.
    fn or_end(&self) -> Result<bool, CaptureError> {
        self.take().map_or(Ok(false), |error| Err(error.into()))
    }
}

/// Fills what it is given unless the source ends: the parser takes a short read at the beginning for a short file.
struct Filled<R> {
    source: R,
    failure: Failure,
}

impl<R: Read> Read for Filled<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.source.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // What was read before is a capture as far as it goes; the error is told at its end.
                Err(error) => {
                    self.failure.put(error);
                    break;
                }
            }
        }
        Ok(filled)
    }
}

/// The source as it is before compression.
fn plain(
    source: impl Read + Send + 'static,
    failure: &Failure,
) -> Result<Box<dyn Read + Send>, CaptureError> {
    let mut source = BufReader::with_capacity(BUFFER, source);
    let mut first = [0; 2];
    let mut known = 0;
    while known < first.len() {
        match source.read(&mut first[known..])? {
            0 => break,
            count => known += count,
        }
    }
    let whole = io::Cursor::new(first).take(known as u64).chain(source);
    let failure = failure.clone();
    Ok(if first == GZIP {
        let source = MultiGzDecoder::new(BufReader::with_capacity(BUFFER, whole));
        Box::new(Filled { source, failure })
    } else {
        Box::new(Filled { source: whole, failure })
    })
}
