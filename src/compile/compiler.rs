//! A model that is edited and compiled again and again.

use std::borrow::Cow;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use slab::Slab;

use super::chains::{Chains, Profiles};
use super::compiled::Compiled;
use super::error::{CompileError, Place};
use super::held::Held;
use super::index::{LabelMap, SelectorIndex};
use super::members::{Body, Member, Members};
use super::order::{OrderedPolicy, Tiers};
use super::rules::{RuleBuilder, Size, Sources};
use super::selection::Selection;
use super::services::{self, Backends, Services};
use super::sets::Sets;
use super::template::{Owner, Templates};
use super::{settings, warnings};
use crate::flow::Direction;
use crate::model::{self, Change, Limits, Model, Profile, Resource, Tier};
use crate::program::{Attachment, Endpoint, EndpointKind, Program, Settings};

/// Keeps a model with what is known of it, so that an edit compiles only what it touches.
///
/// The program is the one that [`compile`](super::compile) makes of the model as it is now, whatever it was before; its
/// parts that are as they were are shared with the programs of earlier edits.
pub struct Compiler<'m> {
    node: Option<String>,
    settings: Settings,
    limits: Limits,
    /// Where the resource of a key is.
    places: FxHashMap<Cow<'m, str>, Site>,
    members: Members<'m>,
    services: Services<'m>,
    profiles: Profiles<'m>,
    tiers: Tiers<'m>,
    policies: Slab<OrderedPolicy<'m>>,
    subjects: SelectorIndex,
    sets: Sets,
    templates: Templates,
    /// The endpoints that are enforced, in the program's order.
    enforced: Vec<Enforced>,
    /// Of kinds of enforced endpoints: the policies that select them, in order.
    selected: FxHashMap<usize, Vec<usize>>,
    compiles: u64,
    /// Of the last program.
    size: Size,
    /// The last program, as long as only members of its sets have changed.
    last: Option<Compiled>,
}

/// An endpoint that is enforced.
struct Enforced {
    member: usize,
    /// As it was in the last program, unless it has changed.
    endpoint: Option<Arc<Endpoint>>,
}

#[derive(Clone, Copy)]
enum Site {
    Member(usize),
    Profile,
    Tier,
    Policy(usize),
    Service,
}

/// A resource that has been read, or its absence.
enum Part<'m> {
    Member(Box<Member<'m>>),
    Profile(Cow<'m, Profile>),
    Tier(Cow<'m, Tier>),
    Policy(Box<OrderedPolicy<'m>>),
    Service(Box<Backends<'m>>),
}

impl Compiler<'static> {
    /// Of a model, for the endpoints of a node, or for all workloads of the cluster. Its settings and limits stay.
    pub fn new(model: Model, node: Option<&str>) -> Result<Self, CompileError> {
        let Model { workloads, hosts, network_sets, profiles, tiers, policies, services, settings, limits } =
            model;
        let mut compiler = Self::empty(&settings, &limits)?;
        compiler.reserve(workloads.len());
        // Profiles first: members inherit from them.
        let resources = (profiles.into_iter().map(Resource::Profile))
            .chain(workloads.into_iter().map(Resource::Workload))
            .chain(hosts.into_iter().map(Resource::Host))
            .chain(network_sets.into_iter().map(Resource::NetworkSet))
            .chain(services.into_iter().map(Resource::Service))
            .chain(tiers.into_iter().map(Resource::Tier))
            .chain(policies.into_iter().map(Resource::Policy));
        for resource in resources {
            let part = Part::of(resource)?;
            compiler.add(part)?;
        }
        Ok(compiler.enforcing(node))
    }
}

impl<'m> Part<'m> {
    fn of(resource: Resource) -> Result<Self, CompileError> {
        match resource {
            Resource::Workload(workload) => Self::member(Body::Workload(Held::own(workload))),
            Resource::Host(host) => Self::member(Body::Host(Held::own(host))),
            Resource::NetworkSet(set) => Self::member(Body::Set(Held::own(set))),
            Resource::Profile(profile) => Ok(Self::Profile(Cow::Owned(profile))),
            Resource::Tier(tier) => Ok(Self::Tier(Cow::Owned(tier))),
            Resource::Policy(policy) => Self::policy(Cow::Owned(policy)),
            Resource::Service(service) => Self::service(Cow::Owned(service)),
        }
    }

    fn member(body: Body<'m>) -> Result<Self, CompileError> {
        Ok(Self::Member(Box::new(Member::read(body)?)))
    }

    fn policy(policy: Cow<'m, model::Policy>) -> Result<Self, CompileError> {
        Ok(Self::Policy(Box::new(OrderedPolicy::read(policy)?)))
    }

    fn service(service: Cow<'m, model::Service>) -> Result<Self, CompileError> {
        Ok(Self::Service(Box::new(Backends::read(service)?)))
    }

    /// `Kind/namespace/name` or `Kind/name`.
    fn key(&self) -> Cow<'m, str> {
        Cow::Owned(match self {
            Self::Member(member) => return member.body.key(),
            Self::Profile(profile) => format!("Profile/{}", profile.name),
            Self::Tier(tier) => format!("Tier/{}", tier.name),
            Self::Policy(ordered) => ordered.key.clone(),
            Self::Service(backends) => services::key(&backends.service),
        })
    }
}

impl<'m> Compiler<'m> {
    /// As [`new`](Compiler::new), of a model that somebody else keeps.
    pub fn borrowing(model: &'m Model, node: Option<&str>) -> Result<Self, CompileError> {
        let mut compiler = Self::empty(&model.settings, &model.limits)?;
        compiler.reserve(model.workloads.len());
        for profile in &model.profiles {
            compiler.add(Part::Profile(Cow::Borrowed(profile)))?;
        }
        let workloads = model.workloads.iter().map(|workload| Body::Workload(Held::Lent(workload)));
        let hosts = model.hosts.iter().map(|host| Body::Host(Held::Lent(host)));
        let sets = model.network_sets.iter().map(|set| Body::Set(Held::Lent(set)));
        for body in workloads.chain(hosts).chain(sets) {
            compiler.add(Part::member(body)?)?;
        }
        for service in &model.services {
            compiler.add(Part::service(Cow::Borrowed(service))?)?;
        }
        for tier in &model.tiers {
            compiler.add(Part::Tier(Cow::Borrowed(tier)))?;
        }
        for policy in &model.policies {
            compiler.add(Part::policy(Cow::Borrowed(policy))?)?;
        }
        Ok(compiler.enforcing(node))
    }

    fn empty(settings: &model::Settings, limits: &Limits) -> Result<Self, CompileError> {
        Ok(Self {
            node: None,
            settings: settings::settings(settings)?,
            limits: limits.clone(),
            places: FxHashMap::default(),
            members: Members::default(),
            services: Services::default(),
            profiles: Profiles::default(),
            tiers: Tiers::default(),
            policies: Slab::new(),
            subjects: SelectorIndex::default(),
            sets: Sets::default(),
            templates: Templates::default(),
            enforced: Vec::new(),
            selected: FxHashMap::default(),
            compiles: 0,
            size: Size::default(),
            last: None,
        })
    }

    /// Makes room for so many more members.
    fn reserve(&mut self, members: usize) {
        self.places.reserve(members);
        self.members.reserve(members);
    }

    /// Changes the model, in order, and compiles it. After an error nothing has changed.
    pub fn apply(&mut self, changes: impl IntoIterator<Item = Change>) -> Result<Arc<Program>, CompileError> {
        let read = |change| match change {
            Change::Put(resource) => {
                let part = Part::of(*resource)?;
                Ok((part.key(), Some(part)))
            }
            Change::Remove(key) => Ok((Cow::Owned(key), None)),
        };
        let changes = changes.into_iter().map(read).collect::<Result<Vec<_>, CompileError>>()?;
        let undo: Vec<_> = changes.into_iter().map(|(key, part)| self.replace(key, part)).collect();
        let program = self.program();
        if program.is_err() {
            for (key, part) in undo.into_iter().rev() {
                self.replace(key, part);
            }
            // Sweeps what the refused edit has left behind; the model before it has a program.
            let _ = self.program();
        }
        program
    }

    /// With all that it is to be made of: [`enforce`](Self::enforce).
    fn enforcing(mut self, node: Option<&str>) -> Self {
        self.enforce(node);
        self
    }

    /// From here on the endpoints of this node are enforced, or all workloads of the cluster.
    pub fn enforce(&mut self, node: Option<&str>) {
        self.node = node.map(str::to_owned);
        let local = self.members.iter().filter_map(|(id, member)| Some((member.enforced(node)?, id)));
        let mut local: Vec<_> = local.collect();
        local.sort_unstable();
        self.enforced = local.into_iter().map(|(_, member)| Enforced { member, endpoint: None }).collect();
        self.last = None;
    }

    /// Puts the part in the place of what has the key; gives what undoes that.
    fn replace(&mut self, key: Cow<'m, str>, part: Option<Part<'m>>) -> (Cow<'m, str>, Option<Part<'m>>) {
        let before = self.take(&key);
        if let Some(part) = part {
            self.insert(key.clone(), part);
        }
        (key, before)
    }

    /// Two resources of one name cannot be told apart: neither by an order, nor in an answer. After an error this is
    /// good for nothing. Endpoints are enforced all at once [behind this](Self::enforce): a place for each one takes as long as
    /// there are others.
    fn add(&mut self, part: Part<'m>) -> Result<(), CompileError> {
        let key = part.key();
        let site = self.settle(&key, part);
        match self.places.entry(key) {
            Entry::Vacant(place) => {
                place.insert(site);
                Ok(())
            }
            Entry::Occupied(place) => {
                Err(Place::new(place.key(), "metadata.name").error("found twice, expected once"))
            }
        }
    }

    fn insert(&mut self, key: Cow<'m, str>, part: Part<'m>) {
        let site = self.settle(&key, part);
        if let Site::Member(id) = site
            && let Some(place) = self.members.get(id).enforced(self.node.as_deref())
        {
            let place = self.enforced_place(place);
            self.enforced.insert(place, Enforced { member: id, endpoint: None });
            self.last = None;
        }
        self.places.insert(key, site);
    }

    /// Where it is from now on.
    fn settle(&mut self, key: &str, part: Part<'m>) -> Site {
        match part {
            Part::Member(member) => Site::Member(self.insert_member(*member)),
            Part::Profile(profile) => {
                let name = profile.name.clone();
                self.profiles.insert(name.clone(), profile);
                self.profile_changed(&name);
                Site::Profile
            }
            Part::Tier(tier) => {
                self.tiers.insert(tier);
                self.forget_selected();
                Site::Tier
            }
            Part::Policy(ordered) => Site::Policy(self.insert_policy(*ordered)),
            Part::Service(backends) => {
                self.services.insert(key.to_owned(), *backends);
                self.last = None;
                Site::Service
            }
        }
    }

    fn take(&mut self, key: &str) -> Option<Part<'m>> {
        let site = self.places.remove(key)?;
        let name = || key.split_once('/').map_or(key, |(_, name)| name);
        Some(match site {
            Site::Member(id) => Part::Member(Box::new(self.remove_member(id))),
            Site::Profile => {
                let profile = self.profiles.remove(name()).expect("it has a place");
                self.profile_changed(name());
                Part::Profile(profile)
            }
            Site::Tier => {
                self.forget_selected();
                Part::Tier(self.tiers.remove(name()).expect("it has a place"))
            }
            Site::Policy(id) => Part::Policy(Box::new(self.remove_policy(id))),
            Site::Service => {
                self.last = None;
                Part::Service(Box::new(self.services.remove(key).expect("it has a place")))
            }
        })
    }

    fn insert_member(&mut self, member: Member<'m>) -> usize {
        let profiles = &self.profiles;
        let id = self.members.insert(member, |name| labels_of(profiles, name));
        let member = self.members.get(id);
        if let Some(kind) = self.members.kind(member) {
            self.sets.joined(member, &kind.labels);
        }
        id
    }

    fn remove_member(&mut self, id: usize) -> Member<'m> {
        let member = self.members.get(id);
        if let Some(place) = member.enforced(self.node.as_deref()) {
            let place = self.enforced_place(place);
            self.enforced.remove(place);
            self.last = None;
        }
        self.sets.leaves(id, &mut self.members);
        let (member, last_of) = self.members.remove(id);
        if let Some(kind) = last_of {
            self.selected.remove(&kind);
        }
        member
    }

    /// Where an endpoint stands, or would stand.
    fn enforced_place(&self, place: (EndpointKind, &str)) -> usize {
        let node = self.node.as_deref();
        self.enforced.partition_point(|other| {
            self.members.get(other.member).enforced(node).is_some_and(|other| other < place)
        })
    }

    /// What a profile gives to those that list it, and what it allows them.
    fn profile_changed(&mut self, name: &str) {
        let profiles = &self.profiles;
        for kind in self.members.labels.with_profile(name) {
            let before = self.members.labels.relabel(kind, |name| labels_of(profiles, name));
            let now = &self.members.labels.kind(kind).labels;
            if before != *now {
                self.sets.relabelled(&before);
                self.sets.relabelled(now);
                self.selected.remove(&kind);
            }
        }
        for direction in [Direction::Ingress, Direction::Egress] {
            self.templates.remove(&(Owner::Profile(name.to_owned()), direction));
        }
        self.last = None;
    }

    /// Which policies select whom, and in which order.
    fn forget_selected(&mut self) {
        self.selected.clear();
        self.last = None;
    }

    fn insert_policy(&mut self, mut ordered: OrderedPolicy<'m>) -> usize {
        let id = self.policies.vacant_key();
        ordered.id = id;
        self.subjects.insert(&ordered.subject, id);
        let labels = &self.members.labels;
        let known = self.selected.len();
        self.selected.retain(|&kind, _| !ordered.subject.matches(&labels.kind(kind).labels));
        if self.selected.len() < known {
            self.last = None;
        }
        self.policies.insert(ordered)
    }

    fn remove_policy(&mut self, id: usize) -> OrderedPolicy<'m> {
        let ordered = self.policies.remove(id);
        self.subjects.remove(&ordered.subject, id);
        for policies in self.selected.values_mut() {
            if let Some(place) = policies.iter().position(|&other| other == id) {
                policies.remove(place);
                self.last = None;
            }
        }
        for direction in [Direction::Ingress, Direction::Egress] {
            self.templates.remove(&(Owner::Policy(id), direction));
        }
        ordered
    }

    /// The model as it is now, compiled.
    pub fn program(&mut self) -> Result<Arc<Program>, CompileError> {
        if let Some(mut last) = self.last.take() {
            let changed = self.sets.changed();
            let (sets, members) = (&mut self.sets, &self.members);
            if let Some(program) = last.with_changed(changed, sets, members, self.compiles, &self.limits) {
                self.last = Some(last);
                return Ok(program);
            }
        }
        let compiled = self.compile()?;
        Ok(Arc::clone(&self.last.insert(compiled).program))
    }

    fn compile(&mut self) -> Result<Compiled, CompileError> {
        Place::new("limits", "endpoints").check_limit(self.enforced.len(), self.limits.endpoints)?;
        self.select();
        self.compiles += 1;
        let from = Sources {
            members: &self.members,
            services: &self.services,
            sets: &mut self.sets,
            templates: &mut self.templates,
            now: self.compiles,
        };
        let selection = Selection { policies: &self.policies, tiers: &self.tiers, selected: &self.selected };
        let builder = RuleBuilder::new(from, &self.settings, &self.limits, self.size);
        let mut chains = Chains::new(builder, &self.profiles, selection);
        let (mut endpoints, mut of_hosts) = (Vec::with_capacity(self.enforced.len()), Vec::new());
        for Enforced { member, endpoint } in &mut self.enforced {
            let member = self.members.get(*member);
            let kind = member.kind.expect("absent endpoints are not enforced");
            let made = match &member.body {
                Body::Host(host) => {
                    of_hosts.push(selection.of(kind));
                    chains.host(host, kind, endpoint.as_ref())?
                }
                Body::Workload(workload) => {
                    let attachment = || match &self.node {
                        Some(_) => Attachment::Name(workload.interface.clone()),
                        None => Attachment::Remote,
                    };
                    chains.workload(workload, attachment, kind, endpoint.as_ref())?
                }
                Body::Set(_) => unreachable!("a network set is no endpoint"),
            };
            endpoints.push(Arc::clone(endpoint.insert(made)));
        }
        let warnings = warnings::of(&endpoints, &of_hosts);
        let (node, settings) = (self.node.as_deref(), self.settings.clone());
        self.size = chains.builder.size();
        Ok(chains.builder.finish(node, settings, endpoints, warnings))
    }

    /// E-1: finds the policies of kinds of which they are not known.
    fn select(&mut self) {
        for enforced in &self.enforced {
            let kind = self.members.get(enforced.member).kind.expect("absent endpoints are not enforced");
            let (members, subjects, policies, tiers) =
                (&self.members, &self.subjects, &self.policies, &self.tiers);
            self.selected.entry(kind).or_insert_with(|| {
                let labels = &members.labels.kind(kind).labels;
                let candidates = subjects.candidates(labels);
                let mut found: Vec<usize> =
                    candidates.filter(|&id| policies[id].subject.matches(labels)).collect();
                found.sort_by(|&a, &b| tiers.compare(&policies[a].policy, &policies[b].policy));
                found
            });
        }
    }
}

fn labels_of<'p>(profiles: &'p Profiles<'_>, name: &str) -> Option<&'p LabelMap> {
    profiles.get(name).map(|profile| &profile.labels)
}
