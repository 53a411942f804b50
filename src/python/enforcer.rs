//! The packet loop for Python: started, swapped, counted and stopped from here; it never calls back.

use std::os::fd::AsRawFd;
use std::sync::Arc;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use serde_json::{Value, json};

use super::events;
use super::question::tuple_value;
use super::table::Table;
use super::{duration, family, value_error};
use crate::enforce::{self, EnforcerConfig, Marks, Noted, Rates, Sample};
use crate::flow::{FlowKey, Hook, Verdict};
use crate::wire::WireError;

/// The packet loop of the calling thread's network namespace.
#[pyclass(frozen, module = "labelgate._core")]
pub struct Enforcer(enforce::Enforcer);

#[pymethods]
impl Enforcer {
    #[new]
    #[allow(clippy::too_many_arguments)] // Keyword arguments of the constructor.
    #[pyo3(signature = (table, interfaces, *, base, workers = 1, maxlen, marks, fail_open, malformed_accept, filter_reject,
        filter_return, without_repeat, null = None,
        sample_every = 0, event_rate = 0, event_policy_rate = 30, recorded = 0))]
    fn new(
        py: Python<'_>,
        table: &Table,
        interfaces: Vec<(u32, String)>,
        base: u16,
        workers: u16,
        maxlen: u32,
        marks: (u32, u32, u32),
        fail_open: [bool; 7],
        malformed_accept: bool,
        filter_reject: bool,
        filter_return: bool,
        without_repeat: [bool; 7],
        null: Option<&str>,
        sample_every: u32,
        event_rate: u32,
        event_policy_rate: u32,
        recorded: u32,
    ) -> PyResult<Self> {
        let null = null.map(|word| {
            Verdict::from_name(word).ok_or_else(|| PyValueError::new_err(format!("no verdict `{word}`")))
        });
        let (accept, decided, reject) = marks;
        let config = EnforcerConfig {
            base,
            workers,
            maxlen,
            marks: Marks { accept, decided, reject },
            fail_open,
            malformed_accept,
            filter_reject,
            filter_return,
            without_repeat,
            null: null.transpose()?,
            sample_every,
            event_rates: Rates { rule: event_rate, policy: event_policy_rate },
            recorded,
        };
        let table = Arc::clone(&table.0);
        Ok(Self(py.detach(|| enforce::Enforcer::start(config, table, interfaces))?))
    }

    fn swap(&self, py: Python<'_>, table: &Table, interfaces: Vec<(u32, String)>) -> u64 {
        let table = Arc::clone(&table.0);
        py.detach(|| self.0.swap(table, interfaces))
    }

    fn is_followed(&self, py: Python<'_>, generation: u64, seconds: f64) -> PyResult<bool> {
        let patience = duration(seconds)?;
        Ok(py.detach(|| self.0.is_followed(generation, patience)))
    }

    fn fileno(&self) -> i32 {
        self.0.ended().as_raw_fd()
    }

    fn thread_ids(&self, py: Python<'_>) -> Vec<u32> {
        py.detach(|| self.0.thread_ids())
    }

    fn turns(&self) -> Vec<u64> {
        self.0.turns()
    }

    fn samples(&self, py: Python<'_>, most: usize) -> PyResult<String> {
        let samples = py.detach(|| self.0.samples(most));
        serde_json::to_string(&samples.iter().map(sample).collect::<Vec<_>>()).map_err(value_error)
    }

    #[pyo3(signature = (generation, table))]
    fn stage(&self, py: Python<'_>, generation: u64, table: Option<&Table>) {
        let table = table.map(|table| Arc::clone(&table.0));
        py.detach(|| self.0.stage(generation, table)); // The one before may be the last to hold a large table.
    }

    fn events(&self, py: Python<'_>, most: usize) -> PyResult<String> {
        let text = py.detach(|| {
            let values = self.0.events(most).iter().flat_map(events::values).collect::<Vec<_>>();
            serde_json::to_string(&values)
        });
        text.map_err(value_error)
    }

    fn recorded(&self, py: Python<'_>) -> PyResult<String> {
        let text = py.detach(|| {
            let packets = self.0.recorded();
            let values = packets.iter().map(|(packet, meanings)| events::recorded(packet, meanings.as_ref()));
            serde_json::to_string(&values.collect::<Vec<_>>())
        });
        text.map_err(value_error)
    }

    fn untold(&self) -> (u64, u64) {
        let untold = self.0.untold();
        (untold.limited, untold.lost)
    }

    fn staged_denials(&self) -> u64 {
        self.0.untold().staged_denials
    }

    fn set_without_repeat(&self, hooks: [bool; 7]) {
        self.0.set_without_repeat(hooks);
    }

    #[pyo3(signature = (*, reject, returns))]
    fn set_filter_actions(&self, reject: bool, returns: bool) {
        self.0.set_filter_actions(reject, returns);
    }

    fn set_noted(&self, noted: &str) -> PyResult<()> {
        let found = Noted::from_name(noted);
        self.0.set_noted(found.ok_or_else(|| PyValueError::new_err(format!("nothing is `{noted}`")))?);
        Ok(())
    }

    fn counters(&self) -> PyResult<String> {
        serde_json::to_string(&self.0.counters()).map_err(value_error)
    }

    fn rule_counts(&self, py: Python<'_>) -> PyResult<String> {
        let tables = py.detach(|| self.0.hits());
        let counts = tables.iter().map(|table| {
            json!({
                "generation": table.generation,
                "isOver": table.is_over,
                "rules": table.meanings.counts(table.tallies.iter().copied()),
            })
        });
        serde_json::to_string(&counts.collect::<Vec<_>>()).map_err(value_error)
    }

    fn is_alive(&self) -> bool {
        self.0.is_alive()
    }

    fn failure(&self) -> Option<String> {
        self.0.failure()
    }

    fn drain(&self, py: Python<'_>, seconds: f64) -> PyResult<bool> {
        let patience = duration(seconds)?;
        Ok(py.detach(|| self.0.drain(patience)))
    }

    fn stop(&self, py: Python<'_>) {
        py.detach(|| self.0.stop());
    }
}

impl Drop for Enforcer {
    /// A worker that hangs is waited for: other threads of Python go on meanwhile.
    fn drop(&mut self) {
        let _ = Python::try_attach(|py| py.detach(|| self.0.stop()));
    }
}

/// The queue of a hook and IP version that a worker answers.
#[pyfunction]
#[pyo3(signature = (hook, version, worker, *, base, workers))]
pub fn queue_number(hook: &str, version: u8, worker: u16, base: u16, workers: u16) -> PyResult<u16> {
    let hook = Hook::from_name(hook).ok_or_else(|| PyValueError::new_err(format!("no hook `{hook}`")))?;
    let config = EnforcerConfig { base, workers, ..EnforcerConfig::QUIET };
    enforce::check(&config)?;
    if worker >= workers {
        return Err(value_error(format!("worker {worker} of {workers}: they are counted from 0")));
    }
    Ok(enforce::queue_number(&config, hook, family(version), worker))
}

/// How much of a packet the loop asks the kernel for.
#[pyfunction]
pub fn copied_bytes(version: u8) -> u32 {
    enforce::copied_bytes(family(version))
}

/// Kinds of packets that cannot be read and are denied all the same where such packets pass.
#[pyfunction]
pub fn never_passed() -> Vec<&'static str> {
    WireError::ALL.into_iter().filter(|kind| kind.may_be_sound()).map(WireError::name).collect()
}

/// A sample as JSON: the question in the words of a packet line, its interfaces as ifindexes.
fn sample(sample: &Sample) -> Value {
    let FlowKey { tuple: asked, hook, accepted, dnatted, .. } = sample.key;
    let mut value = json!({
        "generation": sample.generation,
        "hook": hook.name(),
        "in": sample.interfaces.0,
        "out": sample.interfaces.1,
        "accepted": accepted,
        "dnatted": dnatted,
        "verdict": sample.verdict.name(),
        "acceptedAfter": sample.accepted,
    });
    if let (Value::Object(fields), Value::Object(more)) = (&mut value, tuple_value(&asked)) {
        fields.extend(more);
    }
    value
}
