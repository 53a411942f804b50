//! The Python face: bytes, text, numbers and opaque handles. It decides nothing; nobody imports it.

mod batch;
mod bench;
mod capture;
mod compare;
mod conntrack;
mod enforcer;
mod events;
mod judge;
mod load;
mod question;
mod selectors;
mod table;

use std::time::Duration;

use numpy::{PyArray1, PyArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::flow::Family;

/// A century: that far ahead every clock can be asked for an instant.
const MOST_SECONDS: f64 = 100.0 * 365.25 * 86_400.0;

#[allow(clippy::needless_pass_by_value)] // Made for `map_err`, which hands values over.
fn value_error(error: impl ToString) -> PyErr {
    PyValueError::new_err(error.to_string())
}

/// Addresses as a column. IPv4: uint32 (n,); IPv6: uint8 (n, 16).
fn addresses(
    py: Python<'_>,
    numbers: impl ExactSizeIterator<Item = u128>,
    family: Family,
) -> PyResult<Bound<'_, PyAny>> {
    if family == Family::V4 {
        #[allow(clippy::cast_possible_truncation)] // IPv4 numbers are below 2^32.
        return Ok(PyArray1::from_iter(py, numbers.map(|number| number as u32)).into_any());
    }
    let count = numbers.len();
    let bytes = PyArray1::from_iter(py, numbers.flat_map(u128::to_be_bytes));
    Ok(bytes.reshape([count, 16])?.into_any())
}

fn family(version: u8) -> Family {
    if version == 6 { Family::V6 } else { Family::V4 }
}

/// A time to wait.
fn duration(seconds: f64) -> PyResult<Duration> {
    if (0.0..=MOST_SECONDS).contains(&seconds) {
        return Ok(Duration::from_secs_f64(seconds));
    }
    Err(value_error(format!("found {seconds}, expected 0..{MOST_SECONDS} seconds")))
}

/// The compiled core of labelgate. The stub `_core.pyi` is its documentation.
#[pymodule]
mod _core {
    #[pymodule_export]
    use super::bench::{Bench, workloads};
    #[pymodule_export]
    use super::capture::Capture;
    #[pymodule_export]
    use super::compare::{Cell, TablePair};
    #[pymodule_export]
    use super::conntrack::Connections;
    #[pymodule_export]
    use super::enforcer::{Enforcer, copied_bytes, never_passed, queue_number};
    #[pymodule_export]
    use super::judge::Judge;
    #[pymodule_export]
    use super::load::{FrameSource, LoadServer, connect_many, exchange};
    #[pymodule_export]
    use super::selectors::{check_selector, selector_answer};
    #[pymodule_export]
    use super::table::{ChainNumbers, Compiler, Program, Table, compile, default_budgets};

    #[pymodule_export]
    #[allow(non_upper_case_globals)]
    const __version__: &str = env!("CARGO_PKG_VERSION");

    #[pymodule_export]
    const BATCH: usize = crate::nfqueue::BATCH;
    #[pymodule_export]
    const CLOSING_BATCHES: usize = crate::enforce::CLOSING_BATCHES;
    #[pymodule_export]
    const IDLE_MILLISECONDS: i32 = crate::nfqueue::IDLE_MILLISECONDS;
    #[pymodule_export]
    const STOP_SECONDS: f64 = crate::enforce::STOP_PATIENCE.as_secs_f64();
}
