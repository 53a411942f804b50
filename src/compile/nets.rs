//! The CIDR lists of a rule, and for which families the rule exists (M-10..M-14).

use smallvec::SmallVec;

use super::addresses;
use super::error::{CompileError, Place};
use crate::flow::{Family, protocol};
use crate::model::{Entity, Rule};
use crate::program::Net;

/// The four lists.
pub struct RuleNets {
    pub source: SideNets,
    pub destination: SideNets,
}

pub struct SideNets {
    pub nets: SmallVec<[Net; 1]>,
    pub not_nets: SmallVec<[Net; 1]>,
}

impl RuleNets {
    pub fn of(place: &Place<'_>, rule: &Rule) -> Result<Self, CompileError> {
        Ok(Self {
            source: SideNets::of(&place.at("source"), &rule.source)?,
            destination: SideNets::of(&place.at("destination"), &rule.destination)?,
        })
    }

    fn sides(&self) -> [&SideNets; 2] {
        [&self.source, &self.destination]
    }
}

impl SideNets {
    fn of(place: &Place<'_>, entity: &Entity) -> Result<Self, CompileError> {
        let read = |field, texts: &[String]| {
            let place = place.at(field);
            let mut nets = SmallVec::new();
            for text in texts {
                nets.push(addresses::net(&place, text)?);
            }
            Ok(nets)
        };
        Ok(Self { nets: read("nets", &entity.nets)?, not_nets: read("notNets", &entity.not_nets)? })
    }
}

/// M-10..M-14: whether the rule exists for packets of this family.
pub fn exists_in(rule: &Rule, nets: &RuleNets, family: Family) -> bool {
    let (version, other_icmp) = match family {
        Family::V4 => (4, protocol::ICMPV6),
        Family::V6 => (6, protocol::ICMP),
    };
    rule.ip_version.is_none_or(|wanted| wanted == version)
        && rule.protocol != Some(other_icmp)
        && nets.sides().into_iter().all(|side| {
            !is_of_other_family(&side.nets, family)
                && !is_of_other_family(&side.not_nets, family)
                && !holds_everything(&side.not_nets, family)
        })
}

/// M-12: dropping the entries of the other family empties the list.
fn is_of_other_family(list: &[Net], family: Family) -> bool {
    !list.is_empty() && list.iter().all(|net| net.family != family)
}

/// M-14: one entry is the family's catch-all.
fn holds_everything(list: &[Net], family: Family) -> bool {
    let end = if family == Family::V4 { u128::from(u32::MAX) } else { u128::MAX };
    list.iter().any(|net| net.family == family && net.first == 0 && net.last == end)
}
