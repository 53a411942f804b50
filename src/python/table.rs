//! Programs and tables for Python.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::flow::{
    CtState, EndpointId, FiveTuple, FlowKey, Hook, InterfaceId, Transport, Verdict, address_number, protocol,
};
use crate::model::{HostFacts, Model};
use crate::program::EndpointKind;
use crate::table::{Budgets, Decision, DecisionTable, Engines, Gate, Step};

#[allow(clippy::needless_pass_by_value)] // Made for `map_err`, which hands values over.
fn value_error(error: impl ToString) -> PyErr {
    PyValueError::new_err(error.to_string())
}

/// The compiled policy of a node (opaque).
#[pyclass(frozen, module = "labelgate._core")]
pub struct Program {
    program: Arc<crate::program::Program>,
    /// Made for the first table.
    engines: OnceLock<Arc<Engines>>,
}

#[pymethods]
impl Program {
    /// Stable text.
    fn __str__(&self) -> String {
        self.program.to_string()
    }

    #[getter]
    fn warnings(&self) -> Vec<String> {
        self.program.warnings.clone()
    }

    #[getter]
    fn endpoints(&self) -> Vec<String> {
        self.program.endpoints.iter().map(|endpoint| endpoint.name.clone()).collect()
    }
}

/// Model (JSON) to [`Program`].
#[pyfunction]
#[pyo3(signature = (model, node=None))]
pub fn compile(py: Python<'_>, model: &[u8], node: Option<&str>) -> PyResult<Program> {
    py.detach(|| {
        let model: Model = serde_json::from_slice(model).map_err(value_error)?;
        let program = Arc::new(crate::compile::compile(&model, node).map_err(value_error)?);
        Ok(Program { program, engines: OnceLock::new() })
    })
}

/// A program bound to the interfaces of a host.
#[pyclass(frozen, module = "labelgate._core")]
pub struct Table(pub(super) Arc<DecisionTable>);

type StepTuple<'a> = (
    &'static str,
    Option<&'a str>,
    Option<&'a str>,
    Option<&'a str>,
    Option<u32>,
    Option<&'static str>,
    &'static str,
);

/// Verdict, tier, policy, rule.
type GateTuple<'a> = (&'static str, Option<&'a str>, Option<&'a str>, Option<u32>);

#[pymethods]
impl Table {
    #[new]
    fn new(py: Python<'_>, program: &Program, host: &[u8]) -> PyResult<Self> {
        py.detach(|| {
            let host: HostFacts = serde_json::from_slice(host).map_err(value_error)?;
            let build = || Arc::new(Engines::build(Arc::clone(&program.program), &Budgets::default()));
            let engines = Arc::clone(program.engines.get_or_init(build));
            Ok(Self(Arc::new(DecisionTable::new(engines, &host))))
        })
    }

    #[getter]
    fn warnings(&self) -> Vec<String> {
        self.0.warnings()
    }

    /// What kernel rules may answer, as JSON text.
    fn rule_facts(&self) -> PyResult<String> {
        serde_json::to_string(&self.0.rule_facts()).map_err(value_error)
    }

    #[allow(clippy::too_many_arguments)] // One argument per field of the question.
    #[pyo3(signature = (hook, src, dst, protocol, sport=None, dport=None, icmp_type=None, icmp_code=None,
        in_=None, out=None, ct="new", accepted=false, dnatted=false, fragment=false))]
    fn decide(
        &self,
        hook: &str,
        src: &str,
        dst: &str,
        protocol: u8,
        sport: Option<u16>,
        dport: Option<u16>,
        icmp_type: Option<u8>,
        icmp_code: Option<u8>,
        in_: Option<&str>,
        out: Option<&str>,
        ct: &str,
        accepted: bool,
        dnatted: bool,
        fragment: bool,
    ) -> PyResult<(&'static str, bool, bool, StepTuple<'_>)> {
        let transport = transport(protocol, (sport, dport), (icmp_type, icmp_code), fragment);
        let tuple = five_tuple(src, dst, protocol, transport)?;
        let key = self.key(tuple, hook, (in_, out), ct, accepted, dnatted)?;
        let Decision { verdict, failsafe, accepted, step, .. } = self.0.decide(&key);
        Ok((verdict.name(), failsafe, accepted, self.step(&step)))
    }

    #[allow(clippy::too_many_arguments, clippy::type_complexity)] // As `decide`.
    #[pyo3(signature = (hook, src, dst, protocol, sport=None, dport=None, icmp_type=None, icmp_code=None,
        in_=None, out=None, ct="new", accepted=false, dnatted=false, fragment=false))]
    fn trace(
        &self,
        hook: &str,
        src: &str,
        dst: &str,
        protocol: u8,
        sport: Option<u16>,
        dport: Option<u16>,
        icmp_type: Option<u8>,
        icmp_code: Option<u8>,
        in_: Option<&str>,
        out: Option<&str>,
        ct: &str,
        accepted: bool,
        dnatted: bool,
        fragment: bool,
    ) -> PyResult<(&'static str, bool, bool, Vec<StepTuple<'_>>)> {
        let transport = transport(protocol, (sport, dport), (icmp_type, icmp_code), fragment);
        let tuple = five_tuple(src, dst, protocol, transport)?;
        let key = self.key(tuple, hook, (in_, out), ct, accepted, dnatted)?;
        let (Decision { verdict, failsafe, accepted, .. }, steps) = self.0.trace(&key);
        Ok((verdict.name(), failsafe, accepted, steps.iter().map(|step| self.step(step)).collect()))
    }

    #[allow(clippy::too_many_arguments, clippy::type_complexity)] // As `decide`.
    #[pyo3(signature = (src, dst, protocol, sport=None, dport=None, icmp_type=None, icmp_code=None))]
    fn connectivity(
        &self,
        src: &str,
        dst: &str,
        protocol: u8,
        sport: Option<u16>,
        dport: Option<u16>,
        icmp_type: Option<u8>,
        icmp_code: Option<u8>,
    ) -> PyResult<(Option<GateTuple<'_>>, Option<GateTuple<'_>>)> {
        let transport = transport(protocol, (sport, dport), (icmp_type, icmp_code), false);
        let tuple = five_tuple(src, dst, protocol, transport)?;
        let (egress, ingress) = self.0.connectivity(&tuple);
        Ok((egress.map(|gate| self.gate(gate)), ingress.map(|gate| self.gate(gate))))
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
    fn gate(&self, gate: Gate) -> GateTuple<'_> {
        let origin = self.0.origin(&gate.step);
        let verdict = if gate.allows { Verdict::Allow } else { Verdict::Deny };
        (verdict.name(), origin.tier.as_deref(), origin.policy.as_deref(), origin.rule)
    }

    fn key(
        &self,
        tuple: FiveTuple,
        hook: &str,
        (input, output): (Option<&str>, Option<&str>),
        ct: &str,
        accepted: bool,
        dnatted: bool,
    ) -> PyResult<FlowKey> {
        let interface = |name: Option<&str>| name.map_or(InterfaceId::NONE, |name| self.0.interface(name));
        Ok(FlowKey {
            tuple,
            hook: Hook::from_name(hook).ok_or_else(|| value_error(format!("hook: found `{hook}`")))?,
            input: interface(input),
            output: interface(output),
            accepted,
            ct: CtState::from_name(ct).ok_or_else(|| value_error(format!("ct: found `{ct}`")))?,
            dnatted,
        })
    }

    fn step<'a>(&'a self, step: &Step) -> StepTuple<'a> {
        let origin = self.0.origin(step);
        (
            step.stage.name(),
            self.0.endpoint_name(step),
            origin.tier.as_deref(),
            origin.policy.as_deref(),
            origin.rule,
            step.action.map(crate::program::Action::name),
            origin.reason.text(),
        )
    }
}

/// Ports where the protocol has them and one is given (the other is then 0, which no policy can name); nothing is
/// readable in a later fragment (M-19).
fn transport(
    protocol: u8,
    ports: (Option<u16>, Option<u16>),
    icmp: (Option<u8>, Option<u8>),
    fragment: bool,
) -> Transport {
    match (protocol, ports, icmp) {
        _ if fragment => Transport::Opaque,
        (_, (None, None), (None, _)) => Transport::Opaque,
        (protocol::TCP | protocol::UDP | protocol::SCTP | protocol::UDPLITE, (source, destination), _) => {
            Transport::Ports { source: source.unwrap_or(0), destination: destination.unwrap_or(0) }
        }
        (protocol::ICMP | protocol::ICMPV6, _, (Some(kind), code)) => {
            Transport::Icmp { kind, code: code.unwrap_or(0) }
        }
        _ => Transport::Opaque,
    }
}

fn five_tuple(src: &str, dst: &str, protocol: u8, transport: Transport) -> PyResult<FiveTuple> {
    let address = |name: &str, text: &str| {
        text.parse::<IpAddr>()
            .map_err(|_| value_error(format!("{name}: found `{text}`, expected an IPv4 or IPv6 address")))
    };
    let (family, source) = address_number(address("src", src)?);
    let (other, destination) = address_number(address("dst", dst)?);
    if family != other {
        return Err(value_error(format!("dst: found `{dst}`, expected the IP version of src `{src}`")));
    }
    Ok(FiveTuple { family, source, destination, protocol, transport })
}
