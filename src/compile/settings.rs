//! Settings from words to types.

use super::addresses;
use super::error::{CompileError, Place};
use crate::model;
use crate::program::{EndpointToHost, Failsafe, ForwardUnmarked, Settings};

pub fn settings(given: &model::Settings) -> Result<Settings, CompileError> {
    let wrong = |field, found: &str, expected| Err(Place::new("settings", field).unexpected(found, expected));
    Ok(Settings {
        endpoint_to_host: match given.endpoint_to_host.as_str() {
            "Drop" => EndpointToHost::Drop,
            "Accept" => EndpointToHost::Accept,
            "Return" => EndpointToHost::Return,
            other => return wrong("endpoint_to_host", other, "Drop, Accept or Return"),
        },
        invalid_check: given.invalid_check,
        failsafe_inbound: failsafes("failsafe_inbound", &given.failsafe_inbound)?,
        failsafe_outbound: failsafes("failsafe_outbound", &given.failsafe_outbound)?,
        workload_vxlan_port: given.workload_vxlan_port,
        workload_ipip_denied: given.workload_ipip_denied,
        forward_unmarked: match given.forward_unmarked.as_str() {
            "return" => ForwardUnmarked::Return,
            "accept" => ForwardUnmarked::Accept,
            "deny" => ForwardUnmarked::Deny,
            other => return wrong("forward_unmarked", other, "return, accept or deny"),
        },
        exempt_loopback: given.exempt_loopback,
    })
}

fn failsafes(field: &str, entries: &[model::Failsafe]) -> Result<Vec<Failsafe>, CompileError> {
    let place = Place::new("settings", field);
    let read = |entry: &model::Failsafe| {
        let net = entry.net.as_deref().map(|text| addresses::net(&place, text)).transpose()?;
        Ok(Failsafe { protocol: entry.protocol, net, port: entry.port })
    };
    let mut failsafes = entries.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    failsafes.sort_unstable();
    failsafes.dedup();
    Ok(failsafes)
}
