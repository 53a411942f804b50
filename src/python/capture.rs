//! Captures for Python: flows by column, read without the GIL.

use std::fs::File;
use std::io::{self, Read};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use numpy::PyArray1;
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use serde_json::{Map, Value, json};

use super::{addresses, value_error};
use crate::capture::{Capture as Core, CaptureError, Dnat, Flow};
use crate::flow::Family;
use crate::wire::WireError;

/// A capture file that is read on, block by block.
#[pyclass(frozen, module = "labelgate._core")]
pub struct Capture {
    capture: Mutex<Core>,
    read: Arc<AtomicU64>,
}

/// Counts what is read of a file, compressed as it is.
struct Counted {
    file: File,
    read: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

/// Protocol, address and port ahead of DNAT, address and port behind it.
type DnatRule = (Option<u8>, IpAddr, Option<u16>, IpAddr, Option<u16>);

fn read_dnat((protocol, of, port, to, to_port): DnatRule) -> PyResult<Dnat> {
    let number = |address| match address {
        IpAddr::V4(address) => (Family::V4, u128::from(address.to_bits())),
        IpAddr::V6(address) => (Family::V6, address.to_bits()),
    };
    let ((family, of), (other, to)) = (number(of), number(to));
    if family != other {
        return Err(value_error("dnat: expected addresses of one IP version"));
    }
    Ok(Dnat { family, protocol, of: (of, port), to: (to, to_port) })
}

fn capture_error(error: CaptureError) -> PyErr {
    match error {
        CaptureError::Io(error) => PyOSError::new_err(error.to_string()),
        other => value_error(other),
    }
}

#[pymethods]
impl Capture {
    #[new]
    #[pyo3(signature = (path, *, flows, complete, dnat = Vec::new()))]
    fn new(py: Python<'_>, path: &str, flows: usize, complete: bool, dnat: Vec<DnatRule>) -> PyResult<Self> {
        let dnat = dnat.into_iter().map(read_dnat).collect::<PyResult<_>>()?;
        py.detach(|| {
            let read = Arc::new(AtomicU64::new(0));
            let source = Counted { file: File::open(path)?, read: Arc::clone(&read) };
            let capture = Core::open(source, flows, complete, dnat).map_err(capture_error)?;
            Ok(Self { capture: Mutex::new(capture), read })
        })
    }

    /// Columns of IPv4 and of IPv6 flows; None at the end.
    fn read<'py>(
        &self,
        py: Python<'py>,
        most: usize,
    ) -> PyResult<Option<(Bound<'py, PyDict>, Bound<'py, PyDict>)>> {
        let found = py.detach(|| {
            let mut flows = Vec::new();
            let more = self.core().read(most, &mut flows)?;
            Ok((more || !flows.is_empty()).then_some(flows))
        });
        let Some(flows) = found.map_err(capture_error)? else { return Ok(None) };
        let (v4, v6): (Vec<Flow>, Vec<Flow>) =
            flows.into_iter().partition(|flow| flow.key.family == Family::V4);
        Ok(Some((columns(py, &v4, Family::V4)?, columns(py, &v6, Family::V6)?)))
    }

    #[getter]
    fn interfaces(&self) -> Vec<Option<String>> {
        self.core().interfaces().to_vec()
    }

    #[getter]
    fn bytes_read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    fn counters(&self) -> String {
        let core = self.core();
        let counters = core.counters();
        let malformed: Map<String, Value> = WireError::ALL
            .into_iter()
            .zip(counters.malformed)
            .map(|(kind, count)| (kind.name().to_owned(), json!(count)))
            .collect();
        json!({
            "packets": counters.packets,
            "not_ip": counters.not_ip,
            "fragments": counters.fragments,
            "cut_link": counters.cut_link,
            "malformed": malformed,
            "evicted": counters.evicted,
            "is_cut": core.is_cut(),
        })
        .to_string()
    }
}

impl Capture {
    fn core(&self) -> std::sync::MutexGuard<'_, Core> {
        self.capture.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn columns<'py>(py: Python<'py>, flows: &[Flow], family: Family) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for (name, of) in [("src", false), ("dst", true)] {
        let side = |flow: &Flow| if of { flow.key.destination } else { flow.key.source };
        dict.set_item(name, addresses(py, flows.iter().map(side), family)?)?;
    }
    macro_rules! column {
        ($name:literal, $value:expr) => {
            dict.set_item($name, PyArray1::from_iter(py, flows.iter().map($value)))?;
        };
    }
    column!("protocol", |flow| flow.key.protocol);
    column!("sport", |flow| flow.key.source_port);
    column!("dport", |flow| flow.key.destination_port);
    column!("ct", |flow| flow.ct as u8);
    column!("begin", |flow| flow.begin as u8);
    column!("packets", |flow| flow.packets[0]);
    column!("replies", |flow| flow.packets[1]);
    column!("bytes", |flow| flow.bytes[0]);
    column!("reply_bytes", |flow| flow.bytes[1]);
    column!("first", |flow| flow.first);
    column!("last", |flow| flow.last);
    column!("interface", |flow| flow.interface);
    column!("way", |flow| flow.way as u8);
    column!("answered", |flow| flow.is_answered);
    Ok(dict)
}
