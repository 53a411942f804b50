//! The backends of services, as the sets that rules mean by them (M-31, M-32).

use rustc_hash::FxHashMap;

use super::addresses;
use super::error::{CompileError, Place};
use crate::model::{Model, Service, ServiceName};
use crate::program::{AddressSet, PortSet};

/// The sets of each service, by its key.
pub struct Services {
    sets: FxHashMap<String, (AddressSet, PortSet)>,
}

/// `Service/namespace/name`.
pub fn key(service: &Service) -> String {
    key_of(&service.namespace, &service.name)
}

fn key_of(namespace: &str, name: &str) -> String {
    format!("Service/{namespace}/{name}")
}

impl Services {
    pub fn of(model: &Model) -> Result<Self, CompileError> {
        let sets = model.services.iter().map(|service| Ok((key(service), sets(service)?)));
        Ok(Self { sets: sets.collect::<Result<_, CompileError>>()? })
    }

    /// M-32: all backends; of a service that does not exist none.
    pub fn addresses(&self, name: &ServiceName) -> AddressSet {
        self.get(name).map(|(addresses, _)| addresses.clone()).unwrap_or_default()
    }

    /// M-31: where backends listen; of a service that does not exist nowhere.
    pub fn ports(&self, name: &ServiceName) -> PortSet {
        self.get(name).map(|(_, ports)| ports.clone()).unwrap_or_default()
    }

    fn get(&self, name: &ServiceName) -> Option<&(AddressSet, PortSet)> {
        self.sets.get(&key_of(&name.namespace, &name.name))
    }
}

fn sets(service: &Service) -> Result<(AddressSet, PortSet), CompileError> {
    let key = key(service);
    let place = Place::new(&key, "addresses");
    let backends = service.addresses.iter().map(|text| addresses::single(&place, text));
    let backends = backends.collect::<Result<Vec<_>, _>>()?;
    let place = Place::new(&key, "ports");
    let mut members = service
        .ports
        .iter()
        .map(|(text, protocol, port)| {
            let net = addresses::single(&place, text)?;
            Ok((net.family, net.first, *protocol, *port))
        })
        .collect::<Result<Vec<_>, CompileError>>()?;
    members.sort_unstable();
    members.dedup();
    Ok((addresses::union(backends), PortSet { members }))
}
