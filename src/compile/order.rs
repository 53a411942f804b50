//! Tiers and policies in their order (E-2..E-6).

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::error::CompileError;
use crate::model::{Model, Policy, Tier};
use crate::selector::Selector;

/// The label that a workload's namespace is in.
pub const NAMESPACE_LABEL: &str = "projectcalico.org/namespace";
/// The label that a workload's service account is in.
pub const SERVICE_ACCOUNT_LABEL: &str = "projectcalico.org/serviceaccount";

/// A policy with its parsed subject.
pub struct OrderedPolicy<'a> {
    pub policy: &'a Policy,
    /// `Kind/namespace/name` or `Kind/name`.
    pub key: String,
    /// Which endpoints it selects (E-1).
    pub subject: Selector,
}

/// A tier with its policies in order.
pub struct OrderedTier<'a> {
    pub name: &'a str,
    /// `defaultAction: Pass`.
    pub is_pass: bool,
    pub policies: Vec<OrderedPolicy<'a>>,
}

/// All tiers that have policies, in order.
pub struct PolicyOrder<'a> {
    pub tiers: Vec<OrderedTier<'a>>,
}

impl<'a> PolicyOrder<'a> {
    pub fn of(model: &'a Model) -> Result<Self, CompileError> {
        let mut by_tier: BTreeMap<&str, Vec<OrderedPolicy<'a>>> = BTreeMap::new();
        for policy in &model.policies {
            let key = key(policy);
            let subject = subject(policy, &key)?;
            by_tier.entry(&policy.tier).or_default().push(OrderedPolicy { policy, key, subject });
        }
        let mut known: Vec<&Tier> = model.tiers.iter().collect();
        known.sort_by(|a, b| compare_orders(a.order, b.order).then_with(|| a.name.cmp(&b.name)));
        let mut tiers = Vec::new();
        for tier in known {
            if let Some(policies) = by_tier.remove(tier.name.as_str()) {
                tiers.push(OrderedTier { name: &tier.name, is_pass: tier.pass, policies });
            }
        }
        // E-4: what remains names a tier that does not exist; it comes last, by name, and ends in deny.
        let missing = |(name, policies)| OrderedTier { name, is_pass: false, policies };
        tiers.extend(by_tier.into_iter().map(missing));
        for tier in &mut tiers {
            tier.policies.sort_by(compare);
        }
        Ok(Self { tiers })
    }
}

/// E-5: by order, absent last; ties by `name/namespace/kind`.
fn compare(a: &OrderedPolicy, b: &OrderedPolicy) -> Ordering {
    let order = |policy: &Policy| policy.order.unwrap_or(f64::INFINITY);
    let text = |policy: &Policy| format!("{}/{}/{}", policy.name, policy.namespace, policy.kind);
    compare_orders(order(a.policy), order(b.policy)).then_with(|| text(a.policy).cmp(&text(b.policy)))
}

/// As numbers: minus zero equals zero. JSON has no other numbers that do not compare.
fn compare_orders(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b).unwrap_or(Ordering::Equal)
}

fn key(policy: &Policy) -> String {
    if policy.namespace.is_empty() {
        format!("{}/{}", policy.kind, policy.name)
    } else {
        format!("{}/{}/{}", policy.kind, policy.namespace, policy.name)
    }
}

/// E-1: `all()` is rewritten in the selectors of a global policy, each field apart; not in a namespaced one's.
fn subject(policy: &Policy, key: &str) -> Result<Selector, CompileError> {
    let is_global = policy.namespace.is_empty();
    let mut parts = vec![parse(key, "selector", &policy.selector)?];
    if !is_global {
        parts.push(Selector::equals(NAMESPACE_LABEL, &policy.namespace));
    }
    let fields = [
        ("namespaceSelector", &policy.namespace_selector, "pcns.", NAMESPACE_LABEL),
        ("serviceAccountSelector", &policy.service_account_selector, "pcsa.", SERVICE_ACCOUNT_LABEL),
    ];
    for (field, text, prefix, label) in fields {
        if text.is_empty() {
            continue;
        }
        let selector = parse(key, field, text)?.prefixed(prefix);
        let guard = if is_global { Selector::has(label) } else { Selector::all() };
        parts.push(selector.with_all_and_global(&guard, &!guard.clone()));
    }
    Ok(Selector::and(parts))
}

/// A selector of a resource's field.
pub fn parse(resource: &str, field: &str, text: &str) -> Result<Selector, CompileError> {
    Selector::parse(text).map_err(|error| CompileError::new(resource, field, error.to_string()))
}
