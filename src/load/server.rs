//! Who answers: a UDP echo, or a greeter that takes TCP connections.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use crate::nfqueue::{Poller, Wake, block_signals};

/// What a server says to a connection before it closes it.
const GREETING: &[u8] = b"ok";

/// How a server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// UDP: each datagram goes back as it is.
    Echo,
    /// TCP: each connection is greeted and closed.
    Greet,
}

/// A thread that answers until it is dropped.
#[derive(Debug)]
pub struct Server {
    over: Arc<(AtomicBool, Wake)>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Server {
    /// Answers at this address of the calling thread's namespace from now on.
    ///
    /// # Errors
    /// Where the address is taken or none of the host's.
    pub fn start(address: SocketAddr, answer: Answer) -> io::Result<Self> {
        let over = Arc::new((AtomicBool::new(false), Wake::new()?));
        let socket = Listening::open(address, answer)?;
        let ours = Arc::clone(&over);
        let thread = thread::Builder::new().name("server".to_owned()).spawn(move || {
            block_signals();
            let mut poller = Poller::new([socket.as_fd(), ours.1.as_fd()])?;
            while !ours.0.load(Ordering::Acquire) {
                poller.wait(true)?;
                socket.answer_all();
            }
            Ok(())
        })?;
        Ok(Self { over, thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.over.0.store(true, Ordering::Release);
        self.over.1.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // A server that has failed has been missed by its clients.
        }
    }
}

enum Listening {
    Udp(UdpSocket),
    Tcp(TcpListener),
}

impl Listening {
    fn open(address: SocketAddr, answer: Answer) -> io::Result<Self> {
        Ok(match answer {
            Answer::Echo => {
                let socket = UdpSocket::bind(address)?;
                socket.set_nonblocking(true)?;
                Self::Udp(socket)
            }
            Answer::Greet => {
                let socket = TcpListener::bind(address)?;
                socket.set_nonblocking(true)?;
                Self::Tcp(socket)
            }
        })
    }

    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Udp(socket) => socket.as_fd(),
            Self::Tcp(socket) => socket.as_fd(),
        }
    }

    /// Everything that waits now. A client that is gone is none of our business.
    fn answer_all(&self) {
        let mut bytes = [0; 2048];
        match self {
            Self::Udp(socket) => {
                while let Ok((length, client)) = socket.recv_from(&mut bytes) {
                    let _ = socket.send_to(&bytes[..length], client);
                }
            }
            Self::Tcp(socket) => {
                while let Ok((mut stream, _)) = socket.accept() {
                    let _ = stream.write_all(GREETING);
                }
            }
        }
    }
}
