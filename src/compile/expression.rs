//! What one side of a rule says about members (M-20..M-24, M-30).

use super::error::{CompileError, Place};
use super::order::{NAMESPACE_LABEL, SERVICE_ACCOUNT_LABEL, parse};
use crate::model::Entity;
use crate::selector::Selector;

/// The expressions of one entity.
#[derive(Debug, PartialEq)]
pub struct Expression {
    /// The address belongs to a member that satisfies this.
    pub positive: Option<Selector>,
    /// The address belongs to no member that satisfies this; unknown addresses do not (M-24).
    pub negative: Option<Selector>,
}

impl Expression {
    /// The namespace is that of the policy, empty for global policies and profiles.
    pub fn of(place: &Place<'_>, namespace: &str, entity: &Entity) -> Result<Self, CompileError> {
        // S-20: empty is absent.
        let read = |field: &str, text: &str| {
            let given = !text.is_empty();
            given.then(|| parse(&place.at(field), text)).transpose()
        };
        let mut parts = Vec::new();
        if let Some(accounts) = &entity.service_accounts {
            let selector = read("serviceAccounts.selector", &accounts.selector)?;
            parts.extend(selector.map(|selector| selector.prefixed("pcsa.")));
            if !accounts.names.is_empty() {
                parts.push(Selector::one_of(SERVICE_ACCOUNT_LABEL, accounts.names.iter().cloned()));
            }
        }
        parts.extend(read("selector", &entity.selector)?);
        let not_selector = read("notSelector", &entity.not_selector)?;
        let namespace_selector = read("namespaceSelector", &entity.namespace_selector)?;
        let speaks_of_members = !parts.is_empty() || not_selector.is_some() || namespace_selector.is_some();
        let namespace_part = namespace_selector.as_ref().map(in_namespaces).or_else(|| {
            let is_namespaced = !namespace.is_empty();
            is_namespaced.then(|| Selector::equals(NAMESPACE_LABEL, namespace))
        });
        if let Some(part) = namespace_part.filter(|_| speaks_of_members) {
            parts.insert(0, part);
        }
        if parts.is_empty() {
            return Ok(Self { positive: None, negative: not_selector });
        }
        parts.extend(not_selector.map(|selector| !selector));
        Ok(Self { positive: Some(Selector::and(parts)), negative: None })
    }
}

/// M-21.3, M-22.
fn in_namespaces(selector: &Selector) -> Selector {
    let has_namespace = Selector::has(NAMESPACE_LABEL);
    selector.prefixed("pcns.").with_all_and_global(&has_namespace, &!has_namespace.clone())
}
