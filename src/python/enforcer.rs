//! The packet loop for Python: started, swapped, counted and stopped from here; it never calls back.

use std::sync::Arc;
use std::time::Duration;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::table::Table;
use super::value_error;
use crate::enforce::{self, EnforcerConfig, Marks};
use crate::flow::Verdict;

/// The packet loop of the calling thread's network namespace.
#[pyclass(frozen, module = "labelgate._core")]
pub struct Enforcer(enforce::Enforcer);

#[pymethods]
impl Enforcer {
    #[new]
    #[allow(clippy::too_many_arguments)] // Keyword arguments of the constructor.
    #[pyo3(signature = (table, interfaces, *, base, maxlen, marks, fail_open, malformed_accept, filter_reject,
        filter_return, without_repeat, null = None))]
    fn new(
        py: Python<'_>,
        table: &Table,
        interfaces: Vec<(u32, String)>,
        base: u16,
        maxlen: u32,
        marks: (u32, u32, u32),
        fail_open: [bool; 7],
        malformed_accept: bool,
        filter_reject: bool,
        filter_return: bool,
        without_repeat: [bool; 7],
        null: Option<&str>,
    ) -> PyResult<Self> {
        let null = null.map(|word| {
            Verdict::from_name(word).ok_or_else(|| PyValueError::new_err(format!("no verdict `{word}`")))
        });
        let (accept, decided, reject) = marks;
        let config = EnforcerConfig {
            base,
            maxlen,
            marks: Marks { accept, decided, reject },
            fail_open,
            malformed_accept,
            filter_reject,
            filter_return,
            without_repeat,
            null: null.transpose()?,
        };
        let table = Arc::clone(&table.0);
        Ok(Self(py.detach(|| enforce::Enforcer::start(config, table, interfaces))?))
    }

    fn swap(&self, table: &Table, interfaces: Vec<(u32, String)>) {
        self.0.swap(Arc::clone(&table.0), interfaces);
    }

    fn set_without_repeat(&self, hooks: [bool; 7]) {
        self.0.set_without_repeat(hooks);
    }

    #[pyo3(signature = (*, reject, returns))]
    fn set_filter_actions(&self, reject: bool, returns: bool) {
        self.0.set_filter_actions(reject, returns);
    }

    fn counters(&self) -> PyResult<String> {
        serde_json::to_string(&self.0.counters()).map_err(value_error)
    }

    fn is_alive(&self) -> bool {
        self.0.is_alive()
    }

    fn failure(&self) -> Option<String> {
        self.0.failure()
    }

    fn drain(&self, py: Python<'_>, seconds: f64) -> bool {
        py.detach(|| self.0.drain(Duration::from_secs_f64(seconds)))
    }

    fn stop(&self, py: Python<'_>) {
        py.detach(|| self.0.stop());
    }
}
