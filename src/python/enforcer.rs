//! The packet loop for Python: started, swapped, counted and stopped from here; it never calls back.

use std::sync::{Arc, Mutex, PoisonError};

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;

use super::table::Table;
use crate::enforce::{self, EnforcerConfig, Marks};

/// The packet loop of the calling thread's network namespace.
#[pyclass(frozen, module = "labelgate._core")]
pub struct Enforcer(Mutex<Option<enforce::Enforcer>>);

#[pymethods]
impl Enforcer {
    #[new]
    #[allow(clippy::too_many_arguments, clippy::needless_pass_by_value)] // Keyword arguments of the constructor.
    #[pyo3(signature = (table, interfaces, *, base, maxlen, marks, fail_open, malformed_accept, filter_reject,
        filter_return, without_repeat))]
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
    ) -> PyResult<Self> {
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
        };
        let table = Arc::clone(&table.0);
        let enforcer = py.detach(|| enforce::Enforcer::start(config, table, interfaces))?;
        Ok(Self(Mutex::new(Some(enforcer))))
    }

    /// Puts another table in force.
    fn swap(&self, table: &Table, interfaces: Vec<(u32, String)>) -> PyResult<()> {
        self.with(|enforcer| enforcer.swap(Arc::clone(&table.0), interfaces))
    }

    /// The counters, as JSON text.
    fn counters(&self) -> PyResult<String> {
        let counters = self.with(|enforcer| enforcer.counters())?;
        serde_json::to_string(&counters).map_err(|error| PyValueError::new_err(error.to_string()))
    }

    /// Whether the loop answers packets.
    fn is_alive(&self) -> bool {
        self.with(|enforcer| enforcer.is_alive()).unwrap_or(false)
    }

    /// Ends the loop and closes the queues; packets still queued are dropped by the kernel.
    fn stop(&self, py: Python<'_>) {
        let enforcer = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        py.detach(|| {
            if let Some(mut enforcer) = enforcer {
                enforcer.stop();
            }
        });
    }
}

impl Enforcer {
    fn with<T>(&self, call: impl FnOnce(&enforce::Enforcer) -> T) -> PyResult<T> {
        let guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        guard.as_ref().map(call).ok_or_else(|| PyRuntimeError::new_err("the packet loop has been stopped"))
    }
}
