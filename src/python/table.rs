//! Programs and tables for Python.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use numpy::PyArray1;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::types::{PyBytes, PyTuple};

use super::question::Question;
use super::{batch, value_error};
use crate::flow::{Direction, EndpointId, Family, FlowKey, InterfaceId, OutcomeId, Verdict, address_number};
use crate::model::{Change, HostFacts, Model};
use crate::program::{Action, Alike, EndpointKind, PortSet};
use crate::table::{Budgets, Builder, Decision, DecisionTable, Engines, Gate, Step};

/// The compiled policy of a node (opaque).
#[pyclass(frozen, module = "labelgate._core")]
pub struct Program {
    compiled: Arc<crate::program::Program>,
    budgets: Budgets,
    /// Made for the first table.
    engines: OnceLock<Arc<Engines>>,
}

#[pymethods]
impl Program {
    /// Stable text.
    fn __str__(&self) -> String {
        self.compiled.to_string()
    }

    #[getter]
    fn warnings(&self) -> Vec<String> {
        self.compiled.warnings.clone()
    }

    #[getter]
    fn endpoints(&self) -> Vec<String> {
        self.compiled.endpoints.iter().map(|endpoint| endpoint.name.clone()).collect()
    }

    /// Endpoints and chains as JSON text.
    fn contents(&self, py: Python<'_>) -> String {
        py.detach(|| crate::program::contents(&self.compiled))
    }

    /// Rule lists as JSON text.
    fn rule_lists(&self, py: Python<'_>) -> String {
        py.detach(|| crate::program::rule_lists(&self.compiled))
    }

    /// Of each address set its ranges, as bytes: IPv4, IPv6.
    fn address_sets<'py>(&self, py: Python<'py>) -> Vec<(Bound<'py, PyBytes>, Bound<'py, PyBytes>)> {
        let sets = self.compiled.address_sets.iter();
        sets.map(|set| {
            let v4: Vec<u8> =
                set.v4.iter().flat_map(|&(first, last)| [first, last]).flat_map(u32::to_le_bytes).collect();
            let v6: Vec<u8> =
                set.v6.iter().flat_map(|&(first, last)| [first, last]).flat_map(u128::to_be_bytes).collect();
            (PyBytes::new(py, &v4), PyBytes::new(py, &v6))
        })
        .collect()
    }

    /// Of each port set its members, as (IP version, address, protocol, port).
    fn port_sets(&self) -> Vec<Vec<(u8, u128, u8, u16)>> {
        let version = |family| if family == Family::V4 { 4 } else { 6 };
        let members = |set: &Arc<PortSet>| {
            set.members()
                .map(|(family, address, protocol, port)| (version(family), address, protocol, port))
                .collect()
        };
        self.compiled.port_sets.iter().map(members).collect()
    }
}

/// Model (JSON) to [`Program`]; budgets (JSON) of the engines of its tables.
#[pyfunction]
#[pyo3(signature = (model, node=None, budgets=None))]
pub fn compile(
    py: Python<'_>,
    model: &[u8],
    node: Option<&str>,
    budgets: Option<&[u8]>,
) -> PyResult<Program> {
    py.detach(|| {
        let budgets = read_budgets(budgets)?;
        let model: Model = serde_json::from_slice(model).map_err(value_error)?;
        let compiled = Arc::new(crate::compile::compile(&model, node).map_err(value_error)?);
        Ok(Program { compiled, budgets, engines: OnceLock::new() })
    })
}

/// A model that is edited, and the programs of its states; each has its engines.
#[pyclass(frozen, module = "labelgate._core")]
pub struct Compiler {
    budgets: Budgets,
    model: Mutex<crate::compile::Compiler<'static>>,
    builder: Mutex<Builder>,
}

#[pymethods]
impl Compiler {
    #[new]
    #[pyo3(signature = (model, node=None, budgets=None))]
    fn new(py: Python<'_>, model: &[u8], node: Option<&str>, budgets: Option<&[u8]>) -> PyResult<Self> {
        py.detach(|| {
            let budgets = read_budgets(budgets)?;
            let model: Model = serde_json::from_slice(model).map_err(value_error)?;
            let compiler = crate::compile::Compiler::new(model, node).map_err(value_error)?;
            Ok(Self { budgets, model: Mutex::new(compiler), builder: Mutex::new(Builder::new(budgets)) })
        })
    }

    /// The program for the endpoints of another node; its engines are made for its first table.
    fn enforce(&self, py: Python<'_>, node: Option<&str>) -> PyResult<Program> {
        py.detach(|| {
            let mut compiler = self.model.lock().expect("nobody has panicked while editing the model");
            compiler.enforce(node);
            let program = compiler.program().map_err(value_error)?;
            Ok(Program { compiled: program, budgets: self.budgets, engines: OnceLock::new() })
        })
    }

    /// Changes (JSON) to the program of the model with them.
    fn apply(&self, py: Python<'_>, changes: &[u8]) -> PyResult<Program> {
        py.detach(|| {
            let changes: Vec<Change> = serde_json::from_slice(changes).map_err(value_error)?;
            let mut compiler = self.model.lock().expect("nobody has panicked while editing the model");
            let program = compiler.apply(changes).map_err(value_error)?;
            // One that has panicked keeps nothing: it builds anew.
            let mut builder = self.builder.lock().unwrap_or_else(PoisonError::into_inner);
            let engines = OnceLock::from(Arc::new(builder.build(Arc::clone(&program))));
            Ok(Program { compiled: program, budgets: self.budgets, engines })
        })
    }
}

/// What tells which chains of programs decide alike.
#[pyclass(frozen, module = "labelgate._core")]
#[derive(Default)]
pub struct ChainNumbers(Mutex<Alike>);

#[pymethods]
impl ChainNumbers {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    /// The number of each chain of a program.
    fn of(&self, py: Python<'_>, program: &Program) -> Vec<usize> {
        py.detach(|| {
            let mut alike = self.0.lock().expect("nobody has panicked while numbering");
            alike.chains(&program.compiled)
        })
    }
}

fn read_budgets(budgets: Option<&[u8]>) -> PyResult<Budgets> {
    let budgets = budgets.map(serde_json::from_slice).transpose();
    Ok(budgets.map_err(|error| value_error(format!("budgets: {error}")))?.unwrap_or_default())
}

/// The budgets of engines where none are given, as JSON text.
#[pyfunction]
pub fn default_budgets() -> PyResult<String> {
    serde_json::to_string(&Budgets::default()).map_err(value_error)
}

/// A program bound to the interfaces of a host.
#[pyclass(frozen, module = "labelgate._core")]
pub struct Table(pub(super) Arc<DecisionTable>);

/// Action, tier, policy, rule, reason, ids of the Log rules passed.
type OutcomeTuple<'a> =
    (Option<&'static str>, Option<&'a str>, Option<&'a str>, i64, &'static str, Bound<'a, PyTuple>);

pub type StepTuple<'a> = (
    &'static str,
    Option<&'a str>,
    Option<&'a str>,
    Option<&'a str>,
    Option<u32>,
    Option<&'static str>,
    &'static str,
);

type StepTuples<'a> = Vec<StepTuple<'a>>;

/// Verdict, failsafe, accepted, outcome, step.
pub type DecisionTuple<'a> = (&'static str, bool, bool, u32, StepTuple<'a>);

/// Verdict, tier, policy, rule.
type GateTuple<'a> = (&'static str, Option<&'a str>, Option<&'a str>, Option<u32>);

#[pymethods]
impl Table {
    #[new]
    fn new(py: Python<'_>, program: &Program, host: &[u8]) -> PyResult<Self> {
        py.detach(|| {
            let host: HostFacts = serde_json::from_slice(host).map_err(value_error)?;
            let build = || Arc::new(Engines::build(Arc::clone(&program.compiled), &program.budgets));
            let engines = Arc::clone(program.engines.get_or_init(build));
            Ok(Self(Arc::new(DecisionTable::new(engines, &host))))
        })
    }

    #[getter]
    fn warnings(&self) -> Vec<String> {
        self.0.warnings()
    }

    /// What kernel rules may answer, as JSON text.
    fn rule_facts(&self, py: Python<'_>) -> PyResult<String> {
        py.detach(|| serde_json::to_string(&self.0.rule_facts()).map_err(value_error))
    }

    /// Which rules are met where kernel rules answer, as JSON text.
    fn settled(&self, py: Python<'_>) -> PyResult<String> {
        py.detach(|| serde_json::to_string(&self.0.settled()).map_err(value_error))
    }

    /// Engines, their sizes and why they were chosen, as JSON text.
    fn describe(&self, py: Python<'_>) -> PyResult<String> {
        py.detach(|| serde_json::to_string(&self.0.describe()).map_err(value_error))
    }

    /// The rules in force, as JSON text.
    fn rules(&self, py: Python<'_>) -> PyResult<String> {
        py.detach(|| serde_json::to_string(&self.0.rules()).map_err(value_error))
    }

    /// What outcome ids mean, by id.
    fn outcomes<'py>(&'py self, py: Python<'py>) -> PyResult<Vec<OutcomeTuple<'py>>> {
        let meaning = |index| {
            let id = OutcomeId::new(index);
            let origin = self.0.meaning(id).0;
            let logged = PyTuple::new(py, self.0.logged(id).map(OutcomeId::number).collect::<Vec<_>>())?;
            Ok((
                origin.action.map(Action::name),
                origin.tier.as_deref(),
                origin.policy.as_deref(),
                origin.rule.map_or(-1, i64::from),
                origin.reason.text(),
                logged,
            ))
        };
        (0..self.0.outcome_count()).map(meaning).collect()
    }

    /// Interfaces by number; `None`: no interface.
    #[allow(clippy::needless_pass_by_value)]
    fn interface_ids(&self, names: Vec<Option<PyBackedStr>>) -> Vec<u32> {
        names.iter().map(|name| self.interface(name.as_deref()).0).collect()
    }

    /// Many flows at one hook.
    fn decide_batch<'py>(
        &self,
        py: Python<'py>,
        flows: &Bound<'py, PyAny>,
        verdicts: &Bound<'py, PyArray1<u8>>,
        outcomes: &Bound<'py, PyArray1<u32>>,
        threads: usize,
    ) -> PyResult<()> {
        batch::decide(py, &self.0, flows, (verdicts, outcomes), threads)
    }

    /// Many new connections between workloads: both gates.
    #[allow(clippy::needless_pass_by_value)] // Arguments arrive owned.
    fn connectivity_batch<'py>(
        &self,
        py: Python<'py>,
        flows: &Bound<'py, PyAny>,
        egress: batch::AnswerArrays<'py>,
        ingress: batch::AnswerArrays<'py>,
        threads: usize,
    ) -> PyResult<()> {
        batch::connections(py, &self.0, flows, (&egress, &ingress), threads)
    }

    /// Many new connections, each judged by the policy of one workload in one direction.
    fn gate_batch<'py>(
        &self,
        py: Python<'py>,
        egress: bool,
        workloads: &Bound<'py, PyArray1<u32>>,
        flows: &Bound<'py, PyAny>,
        verdicts: &Bound<'py, PyArray1<u8>>,
        outcomes: &Bound<'py, PyArray1<u32>>,
    ) -> PyResult<()> {
        let direction = if egress { Direction::Egress } else { Direction::Ingress };
        batch::gates(py, &self.0, (direction, workloads), flows, (verdicts, outcomes))
    }

    /// One packet; outcome as `outcomes` has it.
    #[allow(clippy::needless_pass_by_value)] // Arguments arrive owned.
    fn decide(&self, packet: Question<'_>) -> PyResult<DecisionTuple<'_>> {
        Ok(decision_tuple(&self.0, &packet.key(&self.0)?))
    }

    #[allow(clippy::needless_pass_by_value)]
    fn trace(&self, packet: Question<'_>) -> PyResult<(&'static str, bool, bool, Vec<StepTuple<'_>>)> {
        let (Decision { verdict, failsafe, accepted, .. }, steps) = self.0.trace(&packet.key(&self.0)?);
        Ok((verdict.name(), failsafe, accepted, steps.iter().map(|step| step_tuple(&self.0, step)).collect()))
    }

    #[allow(clippy::needless_pass_by_value)]
    fn connectivity(&self, packet: Question<'_>) -> PyResult<(Option<GateTuple<'_>>, Option<GateTuple<'_>>)> {
        let (egress, ingress) = self.0.connectivity(&packet.tuple()?);
        Ok((egress.map(|gate| self.gate(gate)), ingress.map(|gate| self.gate(gate))))
    }

    /// The steps of both gates.
    #[allow(clippy::needless_pass_by_value)]
    fn connectivity_trace(
        &self,
        packet: Question<'_>,
    ) -> PyResult<(Option<StepTuples<'_>>, Option<StepTuples<'_>>)> {
        let (egress, ingress) = self.0.connectivity_trace(&packet.tuple()?);
        let named = |steps: Vec<Step>| steps.iter().map(|step| step_tuple(&self.0, step)).collect();
        Ok((egress.map(named), ingress.map(named)))
    }

    /// The workloads with the addresses that they own.
    fn workloads(&self) -> Vec<(String, Vec<String>)> {
        let program = self.0.program();
        let owned = |index: usize, address: IpAddr| {
            let (family, number) = address_number(address);
            self.0.owner(family, number) == Some(EndpointId::new(index))
        };
        let mut workloads: Vec<_> = (program.endpoints.iter().enumerate())
            .filter(|(_, endpoint)| endpoint.kind == EndpointKind::Workload)
            .map(|(index, endpoint)| {
                let addresses = endpoint.addresses.iter().filter(|address| owned(index, **address));
                (endpoint.name.clone(), addresses.map(ToString::to_string).collect())
            })
            .collect();
        workloads.sort_unstable();
        workloads
    }
}

impl Table {
    fn interface(&self, name: Option<&str>) -> InterfaceId {
        name.map_or(InterfaceId::NONE, |name| self.0.interface(name))
    }

    fn gate(&self, gate: Gate) -> GateTuple<'_> {
        let origin = self.0.origin(&gate.step);
        let verdict = if gate.allows { Verdict::Allow } else { Verdict::Deny };
        (verdict.name(), origin.tier.as_deref(), origin.policy.as_deref(), origin.rule)
    }
}

/// A decision with everything that it names.
pub fn decision_tuple<'a>(table: &'a DecisionTable, key: &FlowKey) -> DecisionTuple<'a> {
    // Decided as packets are; only the step is asked for apart.
    let (Decision { verdict, failsafe, accepted, outcome }, (_, step)) =
        (table.decide(key), table.decide_step(key));
    (verdict.name(), failsafe, accepted, outcome.number(), step_tuple(table, &step))
}

fn step_tuple<'a>(table: &'a DecisionTable, step: &Step) -> StepTuple<'a> {
    let origin = table.origin(step);
    (
        step.stage.name(),
        table.endpoint_name(step),
        origin.tier.as_deref(),
        origin.policy.as_deref(),
        origin.rule,
        step.action.map(Action::name),
        origin.reason.text(),
    )
}
