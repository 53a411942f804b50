//! Frames out of one interface, as fast as one core can: `AF_PACKET`, 64 frames a call, no queueing discipline.

#![allow(unsafe_code)]

use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;
use std::time::{Duration, Instant};

/// Frames of one call.
const BATCH: usize = 64;

/// A socket that sends whole frames out of one interface, and hears nothing.
#[derive(Debug)]
pub struct Source {
    fd: OwnedFd,
}

impl Source {
    /// For the interface with this index in the namespace of the calling thread.
    ///
    /// # Errors
    /// `EPERM` without `CAP_NET_RAW`, `ENODEV` without such an interface.
    pub fn open(interface: i32) -> io::Result<Self> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        // SAFETY: takes and returns integers. Protocol 0 receives nothing.
        let fd = checked(unsafe { libc::socket(libc::AF_PACKET, kind, 0) })?;
        // SAFETY: a fresh descriptor that nobody else has.
        let source = Self { fd: unsafe { OwnedFd::from_raw_fd(fd) } };
        source.skip_queueing()?;
        source.bind(interface)?;
        Ok(source)
    }

    fn skip_queueing(&self) -> io::Result<()> {
        let (yes, size) = (1_i32, length_of::<i32>());
        let (level, option) = (libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS);
        let value = ptr::from_ref(&yes).cast();
        // SAFETY: `value` points to a live i32 and `size` is its size.
        checked(unsafe { libc::setsockopt(self.fd.as_raw_fd(), level, option, value, size) })?;
        Ok(())
    }

    fn bind(&self, interface: i32) -> io::Result<()> {
        // SAFETY: all-zero bytes are a valid sockaddr_ll.
        let mut address: libc::sockaddr_ll = unsafe { zeroed() };
        address.sll_family = u16::try_from(libc::AF_PACKET).expect("a small constant");
        address.sll_ifindex = interface;
        let size = length_of::<libc::sockaddr_ll>();
        // SAFETY: the address lives through the call and `size` is its size.
        checked(unsafe { libc::bind(self.fd.as_raw_fd(), ptr::from_ref(&address).cast(), size) })?;
        Ok(())
    }

    /// Sends the frames round and round until `count` have left or the time is over; how many the interface took.
    /// What it has no room for now is tried again.
    ///
    /// # Errors
    /// Where the interface is gone or down.
    pub fn send(&self, frames: &[Vec<u8>], count: u64, time: Duration) -> io::Result<u64> {
        let end = Instant::now() + time;
        let mut places: Vec<_> = frames.iter().map(|frame| place(frame)).collect();
        let mut headers: Vec<_> = places.iter_mut().map(header).collect();
        let (mut sent, mut at) = (0, 0);
        while sent < count && !headers.is_empty() && Instant::now() < end {
            let left = usize::try_from(count - sent).unwrap_or(usize::MAX);
            let room = headers.len();
            let batch = &mut headers[at..room.min(at + BATCH.min(left))];
            let size = u32::try_from(batch.len()).expect("a small batch");
            // SAFETY: each header points to one iovec and each iovec to a whole frame; `places` and `frames`
            // outlive the call, which reads the frames and writes to the headers only.
            let taken = unsafe { libc::sendmmsg(self.fd.as_raw_fd(), batch.as_mut_ptr(), size, 0) };
            match checked(taken) {
                Ok(taken) => {
                    let taken = usize::try_from(taken).expect("not negative");
                    sent += taken as u64;
                    at = (at + taken) % room;
                }
                Err(error) if passes(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(sent)
    }
}

/// Whether there is only no room now.
fn passes(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::EAGAIN | libc::EINTR))
}

fn place(frame: &[u8]) -> libc::iovec {
    libc::iovec { iov_base: frame.as_ptr().cast_mut().cast(), iov_len: frame.len() }
}

fn header(place: &mut libc::iovec) -> libc::mmsghdr {
    // SAFETY: all-zero bytes are a valid mmsghdr: no name, no control data.
    let mut header: libc::mmsghdr = unsafe { zeroed() };
    header.msg_hdr.msg_iov = ptr::from_mut(place);
    header.msg_hdr.msg_iovlen = 1;
    header
}

/// The result of a call that returns a negative number for an error.
fn checked(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn length_of<T>() -> libc::socklen_t {
    libc::socklen_t::try_from(size_of::<T>()).expect("a small struct")
}
