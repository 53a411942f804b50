//! Traffic of `bench queue` for Python: the GIL is released while anything is sent.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Mutex;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::duration;
use crate::load::{self, Answer, ConnectionPlan, Flow, Link, Server, Source};

/// Frames with UDP datagrams, and the interface they leave by.
#[pyclass(frozen, module = "labelgate._core")]
pub struct FrameSource {
    source: Source,
    frames: Vec<Vec<u8>>,
}

/// Source address and port, destination address and port; addresses as numbers.
type FlowTuple = (u32, u16, u32, u16);

#[pymethods]
impl FrameSource {
    #[new]
    #[pyo3(signature = (interface, source, destination, flows, *, payload))]
    fn new(
        interface: i32,
        source: [u8; 6],
        destination: [u8; 6],
        flows: Vec<FlowTuple>,
        payload: u16,
    ) -> PyResult<Self> {
        let link = Link { source, destination };
        let frame = |(source, source_port, destination, port): FlowTuple| {
            let [source, destination] = [source, destination].map(Ipv4Addr::from);
            load::udp_frame(link, &Flow { source, source_port, destination, port }, payload)
        };
        Ok(Self { source: Source::open(interface)?, frames: flows.into_iter().map(frame).collect() })
    }

    fn send(&self, py: Python<'_>, count: u64, seconds: f64) -> PyResult<u64> {
        let time = duration(seconds)?;
        Ok(py.detach(|| self.source.send(&self.frames, count, time))?)
    }
}

/// Nanoseconds of each that was answered, and how many were not.
type Found = (Vec<u64>, u64);

#[pyfunction]
#[allow(clippy::needless_pass_by_value)] // Arguments arrive owned.
#[pyo3(signature = (targets, *, threads, most, seconds, patience, request))]
pub fn connect_many(
    py: Python<'_>,
    targets: Vec<String>,
    threads: usize,
    most: u64,
    seconds: f64,
    patience: f64,
    request: Vec<u8>,
) -> PyResult<Found> {
    let targets = targets.iter().map(|target| socket_address(target)).collect::<PyResult<_>>()?;
    let (time, patience) = (duration(seconds)?, duration(patience)?);
    let plan = ConnectionPlan { targets, threads, most, time, patience, request };
    let found = py.detach(|| load::connect_many(&plan));
    Ok((found.nanoseconds, found.lost))
}

#[pyfunction]
pub fn exchange(py: Python<'_>, source: IpAddr, target: &str, count: u64, seconds: f64) -> PyResult<Found> {
    let (target, time) = (socket_address(target)?, duration(seconds)?);
    let found = py.detach(|| load::exchange(source, target, count, time))?;
    Ok((found.nanoseconds, found.lost))
}

/// A server that answers until it is stopped.
#[pyclass(frozen, module = "labelgate._core")]
pub struct LoadServer(Mutex<Option<Server>>);

#[pymethods]
impl LoadServer {
    #[new]
    fn new(address: &str, answer: &str) -> PyResult<Self> {
        let answer = match answer {
            "echo" => Answer::Echo,
            "greet" => Answer::Greet,
            _ => return Err(PyValueError::new_err(format!("found `{answer}`, expected echo or greet"))),
        };
        Ok(Self(Mutex::new(Some(Server::start(socket_address(address)?, answer)?))))
    }

    fn stop(&self, py: Python<'_>) {
        let server = self.0.lock().expect("nothing panics under the lock").take();
        py.detach(|| drop(server));
    }
}

fn socket_address(text: &str) -> PyResult<SocketAddr> {
    text.parse().map_err(|_| PyValueError::new_err(format!("found `{text}`, expected ADDRESS:PORT")))
}
