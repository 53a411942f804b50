//! One question from Python, as `labelgate.flow.Packet` has it, and what is said of it in a packet line.

use std::net::IpAddr;

use pyo3::conversion::FromPyObjectOwned;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::types::PyString;
use serde_json::{Value, json};

use super::value_error;
use crate::flow::{
    CtState, FiveTuple, FlowKey, Hook, InterfaceId, Transport, address_number, number_address, protocol,
};
use crate::table::DecisionTable;

/// Anything with the attributes of a `Packet`; what they hold is checked when asked for.
#[derive(FromPyObject)]
#[pyo3(transparent)]
pub struct Question<'py>(Bound<'py, PyAny>);

impl<'py> Question<'py> {
    /// What the bytes tell.
    pub fn tuple(&self) -> PyResult<FiveTuple> {
        let py = self.0.py();
        let address = |name| self.field::<IpAddr>(name, "an IPv4 or IPv6 address");
        let (source, destination) = (address(intern!(py, "src"))?, address(intern!(py, "dst"))?);
        let (family, source_number) = address_number(source);
        let (other, number) = address_number(destination);
        if family != other {
            let message = format!("dst: found `{destination}`, expected the IP version of src `{source}`");
            return Err(value_error(message));
        }
        let protocol = self.field(intern!(py, "protocol"), "a number 0..255")?;
        Ok(FiveTuple {
            family,
            source: source_number,
            destination: number,
            protocol,
            transport: self.transport(protocol)?,
        })
    }

    /// The whole question to a table, which has its own numbers for interfaces.
    pub fn key(&self, table: &DecisionTable) -> PyResult<FlowKey> {
        let py = self.0.py();
        let interface = |name| -> PyResult<InterfaceId> {
            let found: Option<PyBackedStr> = self.field(name, "the name of an interface")?;
            Ok(found.map_or(InterfaceId::NONE, |found| table.interface(&found)))
        };
        let flag = |name| self.field::<bool>(name, "True or False");
        Ok(FlowKey {
            tuple: self.tuple()?,
            hook: hook(&self.field::<PyBackedStr>(intern!(py, "hook"), "a word")?)?,
            input: interface(intern!(py, "in_"))?,
            output: interface(intern!(py, "out"))?,
            accepted: flag(intern!(py, "accepted"))?,
            ct: ct_state(&self.field::<PyBackedStr>(intern!(py, "ct"), "a word")?)?,
            dnatted: flag(intern!(py, "dnatted"))?,
        })
    }

    /// Ports where the protocol has them and one is given (the other is then 0, which no policy can name); nothing
    /// is readable in a later fragment (M-19).
    fn transport(&self, protocol: u8) -> PyResult<Transport> {
        let py = self.0.py();
        let port = |name| self.field::<Option<u16>>(name, "a number 0..65535");
        let icmp = |name| self.field::<Option<u8>>(name, "a number 0..255");
        let ports = (port(intern!(py, "sport"))?, port(intern!(py, "dport"))?);
        let (kind, code) = (icmp(intern!(py, "icmp_type"))?, icmp(intern!(py, "icmp_code"))?);
        Ok(match (protocol, ports, kind) {
            _ if self.field(intern!(py, "fragment"), "True or False")? => Transport::Opaque,
            (_, (None, None), None) => Transport::Opaque,
            (
                protocol::TCP | protocol::UDP | protocol::SCTP | protocol::UDPLITE,
                (source, destination),
                _,
            ) => Transport::Ports { source: source.unwrap_or(0), destination: destination.unwrap_or(0) },
            (protocol::ICMP | protocol::ICMPV6, _, Some(kind)) => {
                Transport::Icmp { kind, code: code.unwrap_or(0) }
            }
            _ => Transport::Opaque,
        })
    }

    fn field<T: FromPyObjectOwned<'py>>(&self, name: &Bound<'py, PyString>, expected: &str) -> PyResult<T> {
        let value = self.0.getattr(name)?;
        value.extract().map_err(|_| value_error(format!("{name}: found `{value}`, expected {expected}")))
    }
}

/// The hook with this word.
pub fn hook(word: &str) -> PyResult<Hook> {
    Hook::from_name(word).ok_or_else(|| unknown("hook", word, Hook::ALL.map(Hook::name)))
}

fn ct_state(word: &str) -> PyResult<CtState> {
    CtState::from_name(word).ok_or_else(|| unknown("ct", word, CtState::ALL.map(CtState::name)))
}

fn unknown<const N: usize>(field: &str, found: &str, words: [&str; N]) -> PyErr {
    value_error(format!("{field}: found `{found}`, expected one of {}", words.join(", ")))
}

/// What the bytes told, in the words of a packet line.
pub fn tuple_value(tuple: &FiveTuple) -> Value {
    let address = |number| number_address(tuple.family, number).to_string();
    let (sport, dport, icmp) = match tuple.transport {
        Transport::Ports { source, destination } => (Some(source), Some(destination), None),
        Transport::Icmp { kind, code } => (None, None, Some((kind, code))),
        Transport::Opaque => (None, None, None),
    };
    json!({
        "src": address(tuple.source),
        "dst": address(tuple.destination),
        "protocol": tuple.protocol,
        "sport": sport,
        "dport": dport,
        "icmp": icmp,
    })
}
