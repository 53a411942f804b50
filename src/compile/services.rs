//! The backends of services, as the sets that rules mean by them (M-31, M-32).

use std::borrow::Cow;

use rustc_hash::FxHashMap;

use super::addresses;
use super::error::{CompileError, Place};
use super::shared::Shared;
use crate::model::{Service, ServiceName};
use crate::program::{AddressSet, PortSet};

/// A service with its sets.
pub struct Backends<'m> {
    pub service: Cow<'m, Service>,
    addresses: Shared<AddressSet>,
    ports: Shared<PortSet>,
}

impl<'m> Backends<'m> {
    pub fn read(service: Cow<'m, Service>) -> Result<Self, CompileError> {
        let (addresses, ports) = sets(&service)?;
        Ok(Self { service, addresses: Shared::new(addresses), ports: Shared::new(ports) })
    }
}

/// All services, by their keys.
#[derive(Default)]
pub struct Services<'m> {
    known: FxHashMap<String, Backends<'m>>,
}

/// `Service/namespace/name`.
pub fn key(service: &Service) -> String {
    key_of(&service.namespace, &service.name)
}

fn key_of(namespace: &str, name: &str) -> String {
    format!("Service/{namespace}/{name}")
}

impl<'m> Services<'m> {
    pub fn insert(&mut self, key: String, backends: Backends<'m>) {
        self.known.insert(key, backends);
    }

    pub fn remove(&mut self, key: &str) -> Option<Backends<'m>> {
        self.known.remove(key)
    }

    /// M-32: all backends; of a service that does not exist none.
    pub fn addresses(&self, name: &ServiceName) -> Shared<AddressSet> {
        self.get(name).map_or_else(|| Shared::new(AddressSet::default()), |found| found.addresses.clone())
    }

    /// M-31: where backends listen; of a service that does not exist nowhere.
    pub fn ports(&self, name: &ServiceName) -> Shared<PortSet> {
        self.get(name).map_or_else(|| Shared::new(PortSet::default()), |found| found.ports.clone())
    }

    fn get(&self, name: &ServiceName) -> Option<&Backends<'m>> {
        self.known.get(&key_of(&name.namespace, &name.name))
    }
}

fn sets(service: &Service) -> Result<(AddressSet, PortSet), CompileError> {
    let key = key(service);
    let place = Place::new(&key, "addresses");
    let backends = service.addresses.iter().map(|text| addresses::single(&place, text));
    let backends = backends.collect::<Result<Vec<_>, _>>()?;
    let place = Place::new(&key, "ports");
    let ports = service
        .ports
        .iter()
        .map(|(text, protocol, port)| {
            let net = addresses::single(&place, text)?;
            Ok((net.family, net.first, *protocol, *port))
        })
        .collect::<Result<PortSet, CompileError>>()?;
    Ok((addresses::union(backends), ports))
}
