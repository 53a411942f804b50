//! Tiers and policies in their order (E-2..E-6).

use std::borrow::Cow;
use std::cmp::Ordering;

use rustc_hash::FxHashMap;

use super::error::{CompileError, Place};
use crate::model::{Policy, Tier};
use crate::selector::Selector;

/// The label that a workload's namespace is in.
pub const NAMESPACE_LABEL: &str = "projectcalico.org/namespace";
/// The label that a workload's service account is in.
pub const SERVICE_ACCOUNT_LABEL: &str = "projectcalico.org/serviceaccount";

/// A policy with its parsed subject.
pub struct OrderedPolicy<'m> {
    pub policy: Cow<'m, Policy>,
    /// `Kind/namespace/name` or `Kind/name`.
    pub key: String,
    /// Which endpoints it selects (E-1).
    pub subject: Selector,
    /// Its number among all policies.
    pub id: usize,
}

impl<'m> OrderedPolicy<'m> {
    /// Its number is given later.
    pub fn read(policy: Cow<'m, Policy>) -> Result<Self, CompileError> {
        let key = key(&policy);
        let subject = subject(&policy, &key)?;
        Ok(Self { policy, key, subject, id: 0 })
    }
}

/// The tiers that exist.
#[derive(Default)]
pub struct Tiers<'m> {
    known: FxHashMap<String, Cow<'m, Tier>>,
}

impl<'m> Tiers<'m> {
    pub fn insert(&mut self, tier: Cow<'m, Tier>) {
        self.known.insert(tier.name.clone(), tier);
    }

    pub fn remove(&mut self, name: &str) -> Option<Cow<'m, Tier>> {
        self.known.remove(name)
    }

    /// `defaultAction: Pass`; a tier that does not exist ends in deny (E-4).
    pub fn is_pass(&self, name: &str) -> bool {
        self.known.get(name).is_some_and(|tier| tier.pass)
    }

    /// Tiers by order and name, those that do not exist last (E-4); in a tier by order, absent last (E-5), ties by
    /// `name/namespace/kind`.
    pub fn compare(&self, a: &Policy, b: &Policy) -> Ordering {
        let tier =
            |policy: &Policy| self.known.get(&policy.tier).map_or((true, 0.0), |tier| (false, tier.order));
        let ((a_missing, a_order), (b_missing, b_order)) = (tier(a), tier(b));
        let order = |policy: &Policy| policy.order.unwrap_or(f64::INFINITY);
        (a_missing.cmp(&b_missing))
            .then_with(|| compare_orders(a_order, b_order))
            .then_with(|| a.tier.cmp(&b.tier))
            .then_with(|| compare_orders(order(a), order(b)))
            .then_with(|| name_parts(a).cmp(name_parts(b)))
    }
}

/// `name/namespace/kind`, byte by byte.
fn name_parts(policy: &Policy) -> impl Iterator<Item = u8> {
    let Policy { name, namespace, kind, .. } = policy;
    [name.as_str(), "/", namespace, "/", kind].into_iter().flat_map(str::bytes)
}

/// As numbers: adding zero makes minus zero zero.
fn compare_orders(a: f64, b: f64) -> Ordering {
    (a + 0.0).total_cmp(&(b + 0.0))
}

/// `Kind/namespace/name` or `Kind/name`.
pub fn key(policy: &Policy) -> String {
    if policy.namespace.is_empty() {
        format!("{}/{}", policy.kind, policy.name)
    } else {
        format!("{}/{}/{}", policy.kind, policy.namespace, policy.name)
    }
}

/// E-1: in a global policy `all()` of the two narrowing selectors means "has that label", each field apart; in a
/// namespaced policy it stays always true.
fn subject(policy: &Policy, key: &str) -> Result<Selector, CompileError> {
    let is_global = policy.namespace.is_empty();
    let mut parts = vec![parse(&Place::new(key, "spec.selector"), &policy.selector)?];
    if !is_global {
        parts.push(Selector::equals(NAMESPACE_LABEL, &policy.namespace));
    }
    let fields = [
        ("spec.namespaceSelector", &policy.namespace_selector, "pcns.", NAMESPACE_LABEL),
        ("spec.serviceAccountSelector", &policy.service_account_selector, "pcsa.", SERVICE_ACCOUNT_LABEL),
    ];
    for (field, text, prefix, label) in fields.into_iter().filter(|(_, text, ..)| !text.is_empty()) {
        let selector = parse(&Place::new(key, field), text)?.prefixed(prefix);
        let has_label = Selector::has(label);
        parts.push(if is_global {
            selector.with_all_and_global(&has_label, &!has_label.clone())
        } else {
            selector
        });
    }
    Ok(Selector::and(parts))
}

/// A selector of a resource's field.
pub fn parse(place: &Place<'_>, text: &str) -> Result<Selector, CompileError> {
    Selector::parse(text).map_err(|error| place.error(error.to_string()))
}
