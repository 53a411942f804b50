//! Questions by column from Python: numpy arrays are read and written where they are, without the GIL.

use std::slice;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use numpy::{
    Element, PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray, PyReadonlyArray1, PyReadonlyArray2,
    PyReadwriteArray1, PyUntypedArrayMethods,
};
use pyo3::conversion::FromPyObjectOwned;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::types::PyBytes;

use super::question::hook;
use super::value_error;
use crate::flow::{Direction, Hook};
use crate::table::{Addresses, Column, DecisionTable, Flows, FlowsError};

/// Flows that a thread takes at a time: far more work than taking them, far less than anybody waits for.
const CHUNK: usize = 1 << 14;
/// How long Ctrl-C waits. To ask more often would cost: another thread may hold the GIL for 5 ms.
const BETWEEN_SIGNALS: Duration = Duration::from_millis(100);

/// One value for all flows, or an array that no other call writes meanwhile.
enum Held<'py, T: Element> {
    One(T),
    Each(PyReadonlyArray1<'py, T>),
}

impl<'py, T: Element + Copy + FromPyObjectOwned<'py>> Held<'py, T> {
    fn of(flows: &Bound<'py, PyAny>, name: &str) -> PyResult<Self> {
        let value = flows.getattr(name)?;
        match value.cast::<PyArray1<T>>() {
            Ok(array) => readonly(array.try_readonly(), name).map(Self::Each),
            Err(_) => value.extract().map(Self::One).map_err(Into::into),
        }
    }

    fn column(&self) -> PyResult<Column<'_, T>> {
        Ok(match self {
            Self::One(value) => Column::One(*value),
            Self::Each(array) => Column::Each(array.as_slice()?),
        })
    }
}

/// Addresses of one side.
enum Side<'py> {
    V4(Held<'py, u32>),
    OneV6([u8; 16]),
    EachV6(PyReadonlyArray2<'py, u8>),
}

impl<'py> Side<'py> {
    fn of(flows: &Bound<'py, PyAny>, name: &str) -> PyResult<Self> {
        let value = flows.getattr(name)?;
        if let Ok(array) = value.cast::<PyArray2<u8>>() {
            return readonly(array.try_readonly(), name).map(Self::EachV6);
        }
        // Bytes alone: sixteen small numbers in a column are as many IPv4 addresses.
        match value.cast::<PyBytes>() {
            Ok(address) => address.extract().map(Self::OneV6),
            Err(_) => Held::of(flows, name).map(Self::V4),
        }
    }

    fn v6(&self) -> PyResult<Column<'_, [u8; 16]>> {
        match self {
            Self::OneV6(address) => Ok(Column::One(*address)),
            Self::EachV6(array) if array.shape()[1] == 16 && array.is_c_contiguous() => {
                Ok(Column::Each(array.as_slice()?.as_chunks().0))
            }
            Self::EachV6(_) => Err(value_error("IPv6 addresses: expected a C-contiguous (n, 16)")),
            Self::V4(_) => Err(value_error("found IPv4 and IPv6 addresses")),
        }
    }
}

/// The attributes of `labelgate.columns.Flows`, which has checked them: messages here are for other callers.
struct HeldFlows<'py> {
    hook: Hook,
    source: Side<'py>,
    destination: Side<'py>,
    protocol: Held<'py, u8>,
    source_port: Held<'py, u16>,
    destination_port: Held<'py, u16>,
    input: Held<'py, u32>,
    output: Held<'py, u32>,
    ct: Held<'py, u8>,
    accepted: Held<'py, u8>,
    dnatted: Held<'py, u8>,
    fragment: Held<'py, u8>,
}

impl<'py> HeldFlows<'py> {
    fn of(flows: &Bound<'py, PyAny>) -> PyResult<Self> {
        Ok(Self {
            hook: hook(&flows.getattr("hook")?.extract::<PyBackedStr>()?)?,
            source: Side::of(flows, "src")?,
            destination: Side::of(flows, "dst")?,
            protocol: Held::of(flows, "protocol")?,
            source_port: Held::of(flows, "sport")?,
            destination_port: Held::of(flows, "dport")?,
            input: Held::of(flows, "in_")?,
            output: Held::of(flows, "out")?,
            ct: Held::of(flows, "ct")?,
            accepted: Held::of(flows, "accepted")?,
            dnatted: Held::of(flows, "dnatted")?,
            fragment: Held::of(flows, "fragment")?,
        })
    }

    fn flows(&self) -> PyResult<Flows<'_>> {
        let addresses = match (&self.source, &self.destination) {
            (Side::V4(source), Side::V4(destination)) => {
                Addresses::V4 { source: source.column()?, destination: destination.column()? }
            }
            (source, destination) => Addresses::V6 { source: source.v6()?, destination: destination.v6()? },
        };
        Ok(Flows {
            hook: self.hook,
            addresses,
            protocol: self.protocol.column()?,
            source_port: self.source_port.column()?,
            destination_port: self.destination_port.column()?,
            input: self.input.column()?,
            output: self.output.column()?,
            ct: self.ct.column()?,
            accepted: self.accepted.column()?,
            dnatted: self.dnatted.column()?,
            fragment: self.fragment.column()?,
        })
    }
}

fn readonly<'py, T: Element, D: numpy::ndarray::Dimension>(
    array: Result<PyReadonlyArray<'py, T, D>, numpy::BorrowError>,
    name: &str,
) -> PyResult<PyReadonlyArray<'py, T, D>> {
    array
        .map_err(|_| value_error(format!("{name}: found an array that another call writes its answers into")))
}

fn readwrite<'py, T: Element>(
    array: &Bound<'py, PyArray1<T>>,
    name: &str,
) -> PyResult<PyReadwriteArray1<'py, T>> {
    array.try_readwrite().map_err(|error| match error {
        numpy::BorrowError::NotWriteable => {
            value_error(format!("{name}: found a read-only array, expected one that can be written to"))
        }
        _ => {
            value_error(format!("{name}: found an array that is read or written by this call or another one"))
        }
    })
}

/// Whether each flow has the interface of its hook, in FORWARD one of both: without it nothing governs, and the answer
/// would read as "not denied".
fn check_interfaces(table: &DecisionTable, flows: &Flows<'_>) -> PyResult<()> {
    let (hook, input, output) = (flows.hook, ids(&flows.input), ids(&flows.output));
    let check = |name: &str, ids: &[u32], least: u32| match beyond(ids, least, table.interface_count()) {
        None => Ok(()),
        Some(0) => Err(value_error(format!("{name}: missing: a packet at {} has one", hook.name()))),
        Some(id) => Err(value_error(format!(
            "{name}: found the id {id}, expected ids that `interface_ids` of this table gave"
        ))),
    };
    match hook {
        Hook::RawPrerouting | Hook::ManglePrerouting | Hook::FilterInput => check("in_", input, 1),
        Hook::RawOutput | Hook::FilterOutput | Hook::ManglePostrouting => check("out", output, 1),
        Hook::FilterForward => {
            check("in_", input, 0)?;
            check("out", output, 0)?;
            let is_nowhere = match (input, output) {
                (&[one], others) | (others, &[one]) => one == 0 && others.contains(&0),
                _ => input.iter().zip(output).any(|(input, output)| input | output == 0),
            };
            if is_nowhere {
                return Err(value_error(
                    "in_: missing: say where the packet is seen by `in_`, `out` or both",
                ));
            }
            Ok(())
        }
    }
}

fn ids<'a>(column: &'a Column<'_, u32>) -> &'a [u32] {
    match column {
        Column::One(id) => slice::from_ref(id),
        Column::Each(ids) => ids,
    }
}

/// The first id that is not in `least..count`. All are looked at first, without a branch.
fn beyond(ids: &[u32], least: u32, count: usize) -> Option<u32> {
    let most = u32::try_from(count).expect("a host has far fewer interfaces") - least;
    let is_beyond = |id: u32| id.wrapping_sub(least) >= most;
    let found = ids.iter().fold(0, |found, &id| found | u32::from(is_beyond(id)));
    if found == 0 { None } else { ids.iter().copied().find(|&id| is_beyond(id)) }
}

/// Answers all flows into arrays of their length.
pub fn decide<'py>(
    py: Python<'py>,
    table: &DecisionTable,
    flows: &Bound<'py, PyAny>,
    (verdicts, outcomes): (&Bound<'py, PyArray1<u8>>, &Bound<'py, PyArray1<u32>>),
    threads: usize,
) -> PyResult<()> {
    let held = HeldFlows::of(flows)?;
    let flows = held.flows()?;
    let (mut verdicts, mut outcomes) = (readwrite(verdicts, "into[0]")?, readwrite(outcomes, "into[1]")?);
    let (verdicts, outcomes) = (verdicts.as_slice_mut()?, outcomes.as_slice_mut()?);
    let ask = |flows: &Flows<'_>, verdicts: &mut [u8], outcomes: &mut [u32]| {
        // Here, where the ids are about to be read anyway, it costs next to nothing.
        check_interfaces(table, flows)?;
        table.decide_batch(flows, verdicts, outcomes).map_err(value_error)
    };
    py.detach(|| answer(&ask, &flows, verdicts, outcomes, threads))
}

/// Verdicts and outcomes of one side.
pub type AnswerArrays<'py> = (Bound<'py, PyArray1<u8>>, Bound<'py, PyArray1<u32>>);

/// Answers both gates of new connections between workloads.
pub fn connections<'py>(
    py: Python<'py>,
    table: &DecisionTable,
    flows: &Bound<'py, PyAny>,
    (egress, ingress): (&AnswerArrays<'py>, &AnswerArrays<'py>),
    threads: usize,
) -> PyResult<()> {
    let held = HeldFlows::of(flows)?;
    let flows = held.flows()?;
    // All are held at once, so that none can overlap with another.
    let mut arrays = [
        (Direction::Egress, readwrite(&egress.0, "into[0][0]")?, readwrite(&egress.1, "into[0][1]")?),
        (Direction::Ingress, readwrite(&ingress.0, "into[1][0]")?, readwrite(&ingress.1, "into[1][1]")?),
    ];
    for (direction, verdicts, outcomes) in &mut arrays {
        let (verdicts, outcomes) = (verdicts.as_slice_mut()?, outcomes.as_slice_mut()?);
        let ask = |flows: &Flows<'_>, verdicts: &mut [u8], outcomes: &mut [u32]| {
            table.connectivity_batch(*direction, flows, verdicts, outcomes).map_err(value_error)
        };
        py.detach(|| answer(&ask, &flows, verdicts, outcomes, threads))?;
    }
    Ok(())
}

/// Asks the policy of one workload about each flow, in one direction.
pub fn gates<'py>(
    py: Python<'py>,
    table: &DecisionTable,
    (direction, workloads): (Direction, &Bound<'py, PyArray1<u32>>),
    flows: &Bound<'py, PyAny>,
    (verdicts, outcomes): (&Bound<'py, PyArray1<u8>>, &Bound<'py, PyArray1<u32>>),
) -> PyResult<()> {
    let held = HeldFlows::of(flows)?;
    let flows = held.flows()?;
    let workloads = readonly(workloads.try_readonly(), "workloads")?;
    let workloads = workloads.as_slice()?;
    let known = table.program().endpoints.len();
    if let Some(found) = workloads.iter().find(|&&workload| workload as usize >= known) {
        return Err(value_error(format!("workloads: found {found}, expected a number below {known}")));
    }
    let (mut verdicts, mut outcomes) = (readwrite(verdicts, "into[0]")?, readwrite(outcomes, "into[1]")?);
    let (verdicts, outcomes) = (verdicts.as_slice_mut()?, outcomes.as_slice_mut()?);
    py.detach(|| table.gate_batch(direction, Column::Each(workloads), &flows, verdicts, outcomes))
        .map_err(value_error)
}

/// Answers some of the flows into arrays of their length.
type Ask<'a> = dyn Fn(&Flows<'_>, &mut [u8], &mut [u32]) -> PyResult<()> + Sync + 'a;

/// The calling thread answers, too, and looks for signals; after one nobody takes another chunk.
fn answer(
    ask: &Ask<'_>,
    flows: &Flows<'_>,
    verdicts: &mut [u8],
    outcomes: &mut [u32],
    threads: usize,
) -> PyResult<()> {
    let count = verdicts.len();
    flows.check(count).map_err(value_error)?;
    if outcomes.len() != count {
        let found = outcomes.len();
        return Err(value_error(FlowsError::Length { column: "outcomes", found, expected: count }));
    }
    let chunks = Mutex::new(verdicts.chunks_mut(CHUNK).zip(outcomes.chunks_mut(CHUNK)).enumerate());
    let next = || chunks.lock().unwrap_or_else(PoisonError::into_inner).next();
    let take_chunks = |look: &mut dyn FnMut() -> PyResult<()>| -> PyResult<()> {
        while let Some((index, (verdicts, outcomes))) = next() {
            let first = index * CHUNK;
            let rows = flows.rows(&(first..first + verdicts.len()));
            ask(&rows, verdicts, outcomes)?;
            look()?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let others: Vec<_> = (1..threads.min(count.div_ceil(CHUNK)))
            .map(|_| scope.spawn(|| take_chunks(&mut || Ok(()))))
            .collect();
        let mut looked = Instant::now();
        let own = take_chunks(&mut || {
            if looked.elapsed() < BETWEEN_SIGNALS {
                return Ok(());
            }
            looked = Instant::now();
            check_signals()
        });
        if own.is_err() {
            while next().is_some() {}
        }
        let joined = others.into_iter().map(|other| other.join().expect("a table answers without panic"));
        joined.fold(own, Result::and)
    })
}

/// What a signal's handler raises, if this is the main thread.
fn check_signals() -> PyResult<()> {
    Python::attach(|py| {
        py.check_signals()?;
        Ok(())
    })
}
