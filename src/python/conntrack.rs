//! Tracked connections for Python: datagrams in, columns out.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use numpy::PyArray1;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::addresses;
use crate::conntrack::{Message, State, Tracked, messages};
use crate::flow::Family;

/// What conntrack says of its connections, as it says it.
#[pyclass(frozen, module = "labelgate._core")]
pub struct Connections {
    in_any_state: bool,
    found: Mutex<Vec<Tracked>>,
}

#[pymethods]
impl Connections {
    #[new]
    fn new(in_any_state: bool) -> Self {
        Self { in_any_state, found: Mutex::default() }
    }

    /// Takes one datagram of the kernel's answer; whether it is the last one.
    fn add(&self, datagram: &[u8]) -> PyResult<bool> {
        let mut found = self.found();
        for message in messages(datagram) {
            match message {
                Message::Tracked(one) if self.is_wanted(&one) => found.push(one),
                Message::Error(errno) => return Err(io::Error::from_raw_os_error(errno).into()),
                Message::Last => return Ok(true),
                Message::Tracked(_) | Message::Other => {}
            }
        }
        Ok(false)
    }

    /// Columns of IPv4 and of IPv6 connections.
    fn columns<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyDict>, Bound<'py, PyDict>)> {
        let (v4, v6): (Vec<Tracked>, Vec<Tracked>) =
            self.found().iter().partition(|one| one.family == Family::V4);
        Ok((columns(py, &v4, Family::V4)?, columns(py, &v6, Family::V6)?))
    }
}

impl Connections {
    fn is_wanted(&self, one: &Tracked) -> bool {
        let is_alive = if self.in_any_state {
            one.state != State::Over
        } else {
            one.is_answered && one.state == State::Established
        };
        is_alive && one.is_zoneless
    }

    fn found(&self) -> MutexGuard<'_, Vec<Tracked>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn columns<'py>(py: Python<'py>, found: &[Tracked], family: Family) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("src", addresses(py, found.iter().map(|one| one.ends.source), family)?)?;
    dict.set_item("dst", addresses(py, found.iter().map(|one| one.ends.destination), family)?)?;
    dict.set_item("target", addresses(py, found.iter().map(|one| one.target), family)?)?;
    macro_rules! column {
        ($name:literal, $value:expr) => {
            dict.set_item($name, PyArray1::from_iter(py, found.iter().map($value)))?;
        };
    }
    column!("protocol", |one| one.protocol);
    column!("sport", |one| one.ends.source_port);
    column!("dport", |one| one.ends.destination_port);
    column!("target_port", |one| one.target_port);
    column!("answered", |one| one.is_answered);
    Ok(dict)
}
