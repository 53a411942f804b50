//! One datagram at a time to an echo, and how long it is away.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// A datagram that is not back by then is lost.
const PATIENCE: Duration = Duration::from_millis(200);

/// What became of the datagrams.
#[derive(Clone, Debug, Default)]
pub struct Exchange {
    /// Round trips in nanoseconds.
    pub nanoseconds: Vec<u64>,
    /// Datagrams that did not come back.
    pub lost: u64,
}

/// Sends datagrams from an address of the calling thread's namespace, each when the one before is back.
///
/// # Errors
/// Where there is no way to the target.
pub fn exchange(source: IpAddr, target: SocketAddr, count: u64, time: Duration) -> io::Result<Exchange> {
    let socket = UdpSocket::bind((source, 0))?;
    socket.connect(target)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut found = Exchange::default();
    let end = Instant::now() + time;
    for number in 0..count {
        if Instant::now() >= end {
            break;
        }
        let start = Instant::now();
        // An error of an earlier datagram may come with a later call: that one is lost all the same.
        if socket.send(&number.to_be_bytes()).is_ok() && is_back(&socket, number) {
            found.nanoseconds.push(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX));
        } else {
            found.lost += 1;
        }
    }
    Ok(found)
}

/// Whether this one comes back; one that was given up and comes late does not count.
fn is_back(socket: &UdpSocket, number: u64) -> bool {
    let mut bytes = [0; 8];
    while socket.recv(&mut bytes).is_ok() {
        if bytes == number.to_be_bytes() {
            return true;
        }
    }
    false
}
