//! Tiers and policies in their order (E-2..E-6).

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::error::{CompileError, Place};
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
pub fn ordered_tiers(model: &Model) -> Result<Vec<OrderedTier<'_>>, CompileError> {
    let mut by_tier: BTreeMap<&str, Vec<OrderedPolicy<'_>>> = BTreeMap::new();
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
    Ok(tiers)
}

/// E-5: by order, absent last; ties by `name/namespace/kind`.
fn compare(a: &OrderedPolicy, b: &OrderedPolicy) -> Ordering {
    let order = |policy: &Policy| policy.order.unwrap_or(f64::INFINITY);
    let text = |policy: &Policy| format!("{}/{}/{}", policy.name, policy.namespace, policy.kind);
    compare_orders(order(a.policy), order(b.policy)).then_with(|| text(a.policy).cmp(&text(b.policy)))
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
