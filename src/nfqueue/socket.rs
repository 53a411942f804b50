//! Every system call of the packet path: netlink sockets, waiting for them, interface names.
//!
//! All are Linux's; each block says why it is sound. Queues see only [`Channel`], which tests implement.

#![allow(unsafe_code)]

use std::ffi::CStr;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read, Write};
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;
use std::time::{Duration, Instant};

use super::message::{Message, messages};

/// Datagrams of one receive call: 8 to 64 gains 15 %, more gains nothing.
pub const BATCH: usize = 64;

/// A packet message: 128 bytes of payload and some 120 of attributes; bridges add link-layer headers. An odd number of
/// cache lines: the heads of a batch would else contend for the same few places of the first cache.
const MESSAGE_BYTES: usize = 1088;

/// How long nothing is waited for at most: an idle thread shows so often that it is alive.
pub const IDLE_MILLISECONDS: i32 = 1000;

/// How long a descriptor that has lost its socket goes unnoticed at most, beside one wait.
const POLL_EVERY: Duration = Duration::from_secs(1);

/// What one queued packet costs of a socket buffer: 832 bytes measured, rounded up.
const PACKET_COST: u32 = 1024;

/// What there was to receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// So many datagrams; none if nothing is there now.
    Datagrams(usize),
    /// The receive buffer was full meanwhile (`ENOBUFS`). What it holds comes with the next call.
    Overrun,
}

/// Where a queue's datagrams come from and its replies go.
pub trait Channel {
    /// Fills `inbox` with at most one batch (64) of datagrams, without waiting.
    ///
    /// # Errors
    /// Where nothing will ever come again.
    fn receive(&mut self, inbox: &mut Inbox) -> io::Result<Received>;

    /// Sends messages, all or none.
    fn send(&mut self, messages: &[u8]) -> io::Result<()>;
}

/// Room for one batch of datagrams, reused for all queues.
#[derive(Debug)]
pub struct Inbox {
    bytes: Box<[[u8; MESSAGE_BYTES]]>,
    lengths: [usize; BATCH],
}

/// A part of a datagram in an [`Inbox`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    begin: u32,
    length: u32,
}

impl Default for Inbox {
    fn default() -> Self {
        Self { bytes: vec![[0; MESSAGE_BYTES]; BATCH].into_boxed_slice(), lengths: [0; BATCH] }
    }
}

impl Inbox {
    /// The first `count` datagrams, as far as they fit.
    pub fn datagrams(&self, count: usize) -> impl Iterator<Item = &[u8]> {
        let filled = self.bytes.iter().zip(self.lengths).take(count);
        filled.map(|(bytes, length)| bytes.get(..length).unwrap_or(bytes))
    }

    /// Where a part of a datagram is, for whoever comes back to it before the next batch.
    #[allow(clippy::cast_possible_truncation)] // The whole inbox is smaller.
    pub fn place(&self, part: &[u8]) -> Place {
        let begin = self.bytes.as_flattened().as_ptr().addr();
        Place { begin: part.as_ptr().addr().wrapping_sub(begin) as u32, length: part.len() as u32 }
    }

    /// The part at a place.
    pub fn at(&self, place: Place) -> &[u8] {
        let begin = place.begin as usize;
        &self.bytes.as_flattened()[begin..begin + place.length as usize]
    }

    /// Puts datagrams in, as a receive call does.
    pub fn fill(&mut self, datagrams: &[Vec<u8>]) -> usize {
        for ((bytes, length), datagram) in self.bytes.iter_mut().zip(&mut self.lengths).zip(datagrams) {
            *length = datagram.len().min(MESSAGE_BYTES);
            bytes[..*length].copy_from_slice(&datagram[..*length]);
        }
        datagrams.len().min(BATCH)
    }
}

/// What a socket's receive buffer should hold and may hold, in bytes as the kernel counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceiveBuffer {
    /// For as many packets as the queue may hold.
    pub wanted: u32,
    /// Less than `wanted` where neither `CAP_NET_ADMIN` nor `net.core.rmem_max` allows more.
    pub granted: u32,
}

/// A netlink socket to netfilter that never blocks. It belongs to the network namespace it was opened in.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
}

impl Socket {
    /// Opens a socket whose buffer holds `packets`, as far as it may.
    pub fn open(packets: u32) -> io::Result<(Self, ReceiveBuffer)> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: takes and returns integers.
        let fd = checked(unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_NETFILTER) })?;
        // SAFETY: a fresh descriptor that nobody else has.
        let socket = Self { fd: unsafe { OwnedFd::from_raw_fd(fd) } };
        let buffer = socket.size_buffer(packets)?;
        socket.connect()?;
        Ok((socket, buffer))
    }

    /// To the kernel: nobody else's messages are taken then.
    fn connect(&self) -> io::Result<()> {
        // SAFETY: all-zero bytes are a valid sockaddr_nl; port 0 is the kernel.
        let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        address.nl_family = u16::try_from(libc::AF_NETLINK).expect("a small constant");
        let size = socket_length::<libc::sockaddr_nl>();
        // SAFETY: the address lives through the call and `size` is its size.
        checked(unsafe { libc::connect(self.fd.as_raw_fd(), ptr::from_ref(&address).cast(), size) })?;
        Ok(())
    }

    fn size_buffer(&self, packets: u32) -> io::Result<ReceiveBuffer> {
        let wanted = packets.saturating_mul(PACKET_COST).min(u32::MAX / 2);
        let half = i32::try_from(wanted / 2).expect("below a quarter of the range"); // the kernel doubles it
        if self.set_option(libc::SO_RCVBUFFORCE, half).is_err() {
            self.set_option(libc::SO_RCVBUF, half)?;
        }
        let granted = self.option(libc::SO_RCVBUF)?;
        Ok(ReceiveBuffer { wanted, granted: u32::try_from(granted).unwrap_or(0) })
    }

    fn set_option(&self, option: i32, value: i32) -> io::Result<()> {
        let (value, size) = (ptr::from_ref(&value).cast(), socket_length::<i32>());
        // SAFETY: `value` points to a live i32 and `size` is its size.
        checked(unsafe { libc::setsockopt(self.fd.as_raw_fd(), libc::SOL_SOCKET, option, value, size) })?;
        Ok(())
    }

    fn option(&self, option: i32) -> io::Result<i32> {
        let mut value = 0_i32;
        let mut size = socket_length::<i32>();
        let place = ptr::from_mut(&mut value).cast();
        // SAFETY: `place` points to a live i32 and `size` says so.
        checked(unsafe {
            libc::getsockopt(self.fd.as_raw_fd(), libc::SOL_SOCKET, option, place, &raw mut size)
        })?;
        Ok(value)
    }

    /// Sends one request and learns whether it was done. A packet that came before the answer proves it too, and
    /// stays where it is: the kernel sends none of a queue that is not bound.
    pub fn request(&self, request: &[u8]) -> io::Result<()> {
        self.send_all(request)?;
        let mut answer = [0; MESSAGE_BYTES];
        let length = self.receive_one(&mut answer, libc::MSG_PEEK)?;
        let outcome = match messages(&answer[..length]).next() {
            Some(Message::Packet(_) | Message::Unreadable(_)) => return Ok(()),
            Some(Message::Acknowledged) => Ok(()),
            Some(Message::Error(errno)) => Err(io::Error::from_raw_os_error(errno)),
            Some(Message::Other) | None => {
                Err(io::Error::new(io::ErrorKind::InvalidData, "the kernel's answer is none to a request"))
            }
        };
        self.receive_one(&mut answer, 0)?;
        outcome
    }

    fn receive_one(&self, bytes: &mut [u8], flags: i32) -> io::Result<usize> {
        let (start, size) = (bytes.as_mut_ptr().cast(), bytes.len());
        // SAFETY: `start` and `size` describe the caller's slice.
        let length = unsafe { libc::recv(self.fd.as_raw_fd(), start, size, flags) };
        usize::try_from(length).map_err(|_| io::Error::last_os_error())
    }

    fn send_all(&self, messages: &[u8]) -> io::Result<()> {
        let (start, size) = (messages.as_ptr().cast(), messages.len());
        // SAFETY: `start` and `size` describe the caller's slice.
        let sent = unsafe { libc::send(self.fd.as_raw_fd(), start, size, libc::MSG_NOSIGNAL) };
        usize::try_from(sent).map(drop).map_err(|_| io::Error::last_os_error())
    }

    /// A socket that is no netlink socket, and its other end, at which a test plays the kernel.
    #[cfg(test)]
    pub fn pair() -> (Self, std::os::unix::net::UnixDatagram) {
        let (ours, other) = std::os::unix::net::UnixDatagram::pair().expect("socket pairs need no rights");
        ours.set_nonblocking(true).expect("a socket can be made non-blocking");
        (Self { fd: ours.into() }, other)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Channel for Socket {
    fn receive(&mut self, inbox: &mut Inbox) -> io::Result<Received> {
        let mut places: [libc::iovec; BATCH] = std::array::from_fn(|index| libc::iovec {
            iov_base: inbox.bytes[index].as_mut_ptr().cast(),
            iov_len: MESSAGE_BYTES,
        });
        let mut headers: [libc::mmsghdr; BATCH] = std::array::from_fn(|index| {
            // SAFETY: all-zero bytes are a valid mmsghdr: no name, no control data.
            let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
            header.msg_hdr.msg_iov = &raw mut places[index];
            header.msg_hdr.msg_iovlen = 1;
            header
        });
        let (count, flags) = (u32::try_from(BATCH).expect("a small constant"), libc::MSG_WAITFORONE);
        // SAFETY: each header points to one iovec, each iovec to MESSAGE_BYTES of `inbox`; all outlive the call. The
        // socket does not block, so the flag only stops at the first empty read.
        let received = checked(unsafe {
            libc::recvmmsg(self.fd.as_raw_fd(), headers.as_mut_ptr(), count, flags, ptr::null_mut())
        });
        let received = match received {
            Ok(received) => usize::try_from(received).unwrap_or(0),
            Err(error) => return without_datagrams(error),
        };
        for (length, header) in inbox.lengths.iter_mut().zip(&headers).take(received) {
            *length = header.msg_len as usize;
        }
        Ok(Received::Datagrams(received))
    }

    fn send(&mut self, messages: &[u8]) -> io::Result<()> {
        self.send_all(messages)
    }
}

/// Tells the errors that pass from those that stay.
pub(super) fn without_datagrams(error: io::Error) -> io::Result<Received> {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(Received::Datagrams(0)),
        _ if error.raw_os_error() == Some(libc::ENOBUFS) => Ok(Received::Overrun),
        _ => Err(error),
    }
}

/// Wakes a [`Poller`] from another thread.
#[derive(Debug)]
pub struct Wake {
    event: File,
}

impl Wake {
    /// A fresh one that nobody waits for.
    pub fn new() -> io::Result<Self> {
        // SAFETY: takes and returns integers.
        let fd = checked(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        // SAFETY: a fresh descriptor that nobody else has.
        Ok(Self { event: File::from(unsafe { OwnedFd::from_raw_fd(fd) }) })
    }

    /// Makes it ready. Fails only if it has been so for 2^64 calls.
    pub fn wake(&self) {
        let _ = (&self.event).write(&1_u64.to_ne_bytes());
    }

    /// Makes it wait for the next [`wake`](Self::wake).
    pub fn clear(&self) {
        let _ = (&self.event).read(&mut [0; 8]);
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

/// Waits for several descriptors, which are known by their place in the list.
///
/// By epoll(7), which does not go through all of them for each wait: with short connections, where a batch has few
/// packets, that is a twentieth of all processor time. But it forgets a descriptor that has lost its socket, and the
/// queue would be dead and nobody would know: once a second it is poll(2), to which such a one is ready.
#[derive(Debug)]
pub struct Poller {
    entries: Vec<libc::pollfd>,
    epoll: OwnedFd,
    /// Room for what one wait tells: all of them.
    events: Vec<libc::epoll_event>,
    polled: Instant,
}

impl Poller {
    /// Will wait for these. One that is closed meanwhile counts as ready, two seconds later at most.
    pub fn new<'fd>(descriptors: impl IntoIterator<Item = BorrowedFd<'fd>>) -> io::Result<Self> {
        // SAFETY: takes and returns integers.
        let epoll = checked(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: a fresh descriptor that nobody else has.
        let epoll = unsafe { OwnedFd::from_raw_fd(epoll) };
        let entry = |fd: BorrowedFd| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let entries: Vec<_> = descriptors.into_iter().map(entry).collect();
        for (place, entry) in entries.iter().enumerate() {
            let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: place as u64 };
            // SAFETY: the event outlives the call.
            checked(unsafe {
                libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, entry.fd, &raw mut event)
            })?;
        }
        let events = vec![libc::epoll_event { events: 0, u64: 0 }; entries.len()];
        Ok(Self { entries, epoll, events, polled: Instant::now() })
    }

    /// Returns when at least one is ready, after a second without, or at once if `may_block` is false. A signal is no
    /// error: none is ready.
    pub fn wait(&mut self, may_block: bool) -> io::Result<()> {
        let timeout = if may_block { IDLE_MILLISECONDS } else { 0 };
        let result =
            if self.polled.elapsed() < POLL_EVERY { self.wait_by_epoll(timeout) } else { self.poll(timeout) };
        match result {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                self.entries.iter_mut().for_each(|entry| entry.revents = 0);
                Ok(())
            }
            result => result,
        }
    }

    fn wait_by_epoll(&mut self, timeout: i32) -> io::Result<()> {
        let (epoll, events) = (self.epoll.as_raw_fd(), &mut self.events);
        let most = i32::try_from(events.len()).expect("a handful of descriptors");
        // SAFETY: the pointer and the count describe `events`.
        let count = checked(unsafe { libc::epoll_wait(epoll, events.as_mut_ptr(), most, timeout) })?;
        self.entries.iter_mut().for_each(|entry| entry.revents = 0);
        for event in &events[..usize::try_from(count).unwrap_or(0)] {
            let place = usize::try_from(event.u64).expect("a place in the list");
            self.entries[place].revents = libc::POLLIN;
        }
        Ok(())
    }

    fn poll(&mut self, timeout: i32) -> io::Result<()> {
        let count = libc::nfds_t::try_from(self.entries.len()).expect("a handful of descriptors");
        self.polled = Instant::now();
        // SAFETY: the pointer and the count describe `entries`.
        checked(unsafe { libc::poll(self.entries.as_mut_ptr(), count, timeout) }).map(drop)
    }

    /// Whether the descriptor at this place was ready, or has an error to report.
    pub fn is_ready(&self, place: usize) -> bool {
        self.entries.get(place).is_some_and(|entry| entry.revents != 0)
    }
}

/// The present name of the interface with this index, in the namespace of the calling thread; see `shown`.
pub fn interface_name(index: u32) -> Option<String> {
    let mut name = [0; libc::IF_NAMESIZE];
    // SAFETY: the buffer has the size that the call asks for.
    let found = unsafe { libc::if_indextoname(index, name.as_mut_ptr()) };
    if found.is_null() {
        return None;
    }
    // SAFETY: on success the call has written a name and its terminating zero.
    let name = unsafe { CStr::from_ptr(name.as_ptr()) };
    Some(shown(name.to_bytes()))
}

/// A name is bytes to the kernel. What of it is not UTF-8 becomes `/ff`, byte by byte: no name holds a slash, so the
/// interface is one that nobody has named.
pub(super) fn shown(name: &[u8]) -> String {
    let mut text = String::new();
    for chunk in name.utf8_chunks() {
        text += chunk.valid();
        for byte in chunk.invalid() {
            let _ = write!(text, "/{byte:02x}");
        }
    }
    text
}

/// The kernel's number of the calling thread.
pub fn thread_id() -> u32 {
    // SAFETY: takes nothing and returns an integer.
    unsafe { libc::gettid() }.unsigned_abs()
}

/// Leaves all signals to the other threads: Python runs its handlers in the main thread, which must be the one that
/// a signal interrupts.
pub fn block_signals() {
    // SAFETY: an all-zero set is valid to fill; null says that the old set is not wanted.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, ptr::null_mut());
    }
}

/// The result of a call that returns a negative number for an error.
fn checked(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn socket_length<T>() -> libc::socklen_t {
    libc::socklen_t::try_from(size_of::<T>()).expect("a small struct")
}
