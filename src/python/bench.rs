//! Measurements for Python. Long work is done by a thread of its own, so that Ctrl-C is heard at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;

use crate::model::{HostFacts, Model};
use crate::workload::measure::{self, MeasureError};
use crate::workload::traffic::Scope;
use crate::workload::{NAMED, Named, Traffic, Workload};

/// How often signals are looked for.
const PULSE: Duration = Duration::from_millis(100);
/// Of a hundred questions to policies of somebody's own, those that are aimed at rules.
const AIMED: u64 = 50;

#[pyfunction]
pub fn workloads() -> Vec<&'static str> {
    NAMED.iter().map(|named| named.name).collect()
}

/// A table with the questions to it.
#[pyclass(frozen, module = "labelgate._core")]
pub struct Bench(Arc<Mutex<measure::Bench>>);

#[pymethods]
impl Bench {
    #[new]
    #[pyo3(signature = (workload, *, seed, questions))]
    fn new(py: Python<'_>, workload: &str, seed: u64, questions: usize) -> PyResult<Self> {
        let named = Named::find(workload).ok_or_else(|| {
            let names: Vec<_> = NAMED.iter().map(|named| named.name).collect();
            PyValueError::new_err(format!("found `{workload}`, expected one of {}", names.join(", ")))
        })?;
        Self::made(py, move || Ok(named.workload(seed)), seed, questions)
    }

    #[staticmethod]
    #[pyo3(signature = (model, host, *, node, uplink, seed, questions))]
    fn of_policies(
        py: Python<'_>,
        model: Vec<u8>,
        host: Vec<u8>,
        node: Option<String>,
        uplink: String,
        seed: u64,
        questions: usize,
    ) -> PyResult<Self> {
        let workload = move || {
            let model: Model = serde_json::from_slice(&model).map_err(|error| error.to_string())?;
            let host: HostFacts = serde_json::from_slice(&host).map_err(|error| error.to_string())?;
            let traffic = Traffic::Aimed { scope: Scope::All, aimed: AIMED };
            Ok(Workload { model, node, host, uplink, traffic, naive: None })
        };
        Self::made(py, workload, seed, questions)
    }

    fn facts(&self, py: Python<'_>) -> PyResult<String> {
        json(&self.run(py, |bench, _| Ok(bench.facts()))?)
    }

    fn build(&self, py: Python<'_>) -> PyResult<(f64, f64)> {
        let [compiled, built] = self.run(py, |bench, _| bench.build())?;
        Ok((compiled.as_secs_f64(), built.as_secs_f64()))
    }

    fn check(&self, py: Python<'_>) -> PyResult<String> {
        json(&self.run(py, measure::Bench::check)?)
    }

    fn round(&self, py: Python<'_>) -> PyResult<Vec<(&'static str, &'static str, f64)>> {
        let timings = self.run(py, measure::Bench::round)?;
        Ok(timings.into_iter().map(|timing| (timing.trace, timing.way, timing.nanoseconds)).collect())
    }
}

impl Bench {
    fn made(
        py: Python<'_>,
        workload: impl FnOnce() -> Result<Workload, String> + Send + 'static,
        seed: u64,
        questions: usize,
    ) -> PyResult<Self> {
        let bench = interruptible(py, move |_| {
            measure::Bench::new(workload()?, seed, questions).map_err(|error| error.to_string())
        })?;
        Ok(Self(Arc::new(Mutex::new(bench.map_err(PyValueError::new_err)?))))
    }

    fn run<T: Send + 'static>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&mut measure::Bench, &AtomicBool) -> Result<T, MeasureError> + Send + 'static,
    ) -> PyResult<T> {
        let bench = Arc::clone(&self.0);
        let done = interruptible(py, move |stop| work(&mut lock(&bench), stop))?;
        done.map_err(|error| PyValueError::new_err(error.to_string()))
    }
}

/// A panic has been told; what it left is measured again from the start.
fn lock(bench: &Mutex<measure::Bench>) -> MutexGuard<'_, measure::Bench> {
    bench.lock().unwrap_or_else(PoisonError::into_inner)
}

fn json(value: &impl serde::Serialize) -> PyResult<String> {
    serde_json::to_string(value).map_err(|error| PyValueError::new_err(error.to_string()))
}

/// Does the work in another thread. A signal that raises asks it to stop and does not wait for it.
fn interruptible<T: Send + 'static>(
    py: Python<'_>,
    work: impl FnOnce(&AtomicBool) -> T + Send + 'static,
) -> PyResult<T> {
    let stop = Arc::new(AtomicBool::new(false));
    let (sender, mut receiver) = mpsc::channel();
    let heard = Arc::clone(&stop);
    thread::spawn(move || {
        // Nobody waits for it after a signal.
        let _ = sender.send(work(&heard));
    });
    loop {
        let waited;
        (receiver, waited) = py.detach(move || {
            let waited = receiver.recv_timeout(PULSE);
            (receiver, waited)
        });
        match waited {
            Ok(done) => return Ok(done),
            Err(RecvTimeoutError::Disconnected) => {
                return Err(PyRuntimeError::new_err("the measurement panicked"));
            }
            Err(RecvTimeoutError::Timeout) => {
                py.check_signals().inspect_err(|_| stop.store(true, Ordering::Relaxed))?;
            }
        }
    }
}
