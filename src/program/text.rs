//! A program as stable text: for people, golden files and comparing two programs.

use std::fmt::{self, Display, Formatter, Write};

use super::{
    AddressSet, Attachment, Chain, ChainEnd, ChainId, Endpoint, EndpointKind, Failsafe, PortMatch, PortSet,
    Program, Rule, RuleList, RuleListId, Settings, Side, TierEnd,
};
use crate::flow::{Family, number_address, protocol};

impl Display for Program {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.node {
            Some(node) => writeln!(f, "node {node}")?,
            None => writeln!(f, "all workloads")?,
        }
        write_settings(f, &self.settings)?;
        for endpoint in self.endpoints.iter() {
            write_endpoint(f, endpoint)?;
        }
        for (index, chain) in self.chains.iter().enumerate() {
            self.write_chain(f, index, chain)?;
        }
        for list in self.rule_lists.iter() {
            self.write_list(f, list)?;
        }
        let addresses = self.address_sets.iter().map(|set| addresses(set));
        write_section(f, addresses.enumerate().map(|(index, set)| format!("addresses a{index}: {set}")))?;
        let ports = self.port_sets.iter().map(|set| port_members(set));
        write_section(f, ports.enumerate().map(|(index, set)| format!("ports p{index}: {set}")))?;
        write_section(f, self.warnings.iter().map(|warning| format!("warning: {warning}")))
    }
}

/// Lines with an empty one before them, if there are any.
fn write_section(f: &mut Formatter<'_>, lines: impl Iterator<Item = String>) -> fmt::Result {
    for (index, line) in lines.enumerate() {
        let space = if index == 0 { "\n" } else { "" };
        writeln!(f, "{space}{line}")?;
    }
    Ok(())
}

fn write_settings(f: &mut Formatter<'_>, settings: &Settings) -> fmt::Result {
    let failsafes = |list: &[Failsafe]| {
        let texts: Vec<_> = list
            .iter()
            .map(|entry| {
                let net = entry.net.map_or_else(String::new, |net| format!("{net}:"));
                format!("{}:{net}{}", protocol_name(entry.protocol), entry.port)
            })
            .collect();
        or_none(&texts, " ")
    };
    writeln!(f, "endpoint to host {:?}", settings.endpoint_to_host)?;
    writeln!(f, "INVALID {}", if settings.invalid_check { "denied" } else { "judged" })?;
    writeln!(f, "failsafe inbound {}", failsafes(&settings.failsafe_inbound))?;
    writeln!(f, "failsafe outbound {}", failsafes(&settings.failsafe_outbound))?;
    match settings.workload_vxlan_port {
        Some(port) => writeln!(f, "VXLAN from workloads denied on udp {port}")?,
        None => writeln!(f, "VXLAN from workloads judged")?,
    }
    writeln!(
        f,
        "IP-in-IP from workloads {}",
        if settings.workload_ipip_denied { "denied" } else { "judged" }
    )?;
    writeln!(f, "unmarked end of FORWARD {:?}", settings.forward_unmarked)?;
    writeln!(f, "`*` governs lo: {}", if settings.exempt_loopback { "no" } else { "yes" })
}

fn write_endpoint(f: &mut Formatter<'_>, endpoint: &Endpoint) -> fmt::Result {
    let place = match &endpoint.attachment {
        Attachment::Name(name) => format!("on {name}"),
        Attachment::Any => "on every interface without its own".to_owned(),
        Attachment::Address => "on the interface with its address".to_owned(),
        Attachment::Remote => "elsewhere".to_owned(),
    };
    writeln!(f, "\nendpoint {} {place}", endpoint.name)?;
    let own: Vec<_> = endpoint.addresses.iter().map(ToString::to_string).collect();
    writeln!(f, "  addresses {}", or_none(&own, " "))?;
    if endpoint.kind == EndpointKind::Workload {
        let sources: Vec<_> = endpoint.sources.iter().map(ToString::to_string).collect();
        writeln!(f, "  sources {}", sources.join(" "))?;
    }
    let mut chain = |name: &str, id: ChainId| writeln!(f, "  {name} chain {}", id.index());
    chain("normal ingress", endpoint.normal.ingress)?;
    chain("normal egress", endpoint.normal.egress)?;
    if let Some(forward) = endpoint.forward {
        chain("forward ingress", forward.ingress)?;
        chain("forward egress", forward.egress)?;
    }
    if let Some(untracked) = endpoint.untracked {
        chain("untracked ingress", untracked.ingress)?;
        chain("untracked egress", untracked.egress)?;
    }
    endpoint.prednat.map_or(Ok(()), |id| chain("preDNAT ingress", id))
}

impl Program {
    fn write_chain(&self, f: &mut Formatter<'_>, index: usize, chain: &Chain) -> fmt::Result {
        writeln!(f, "\nchain {index}")?;
        for tier in &chain.tiers {
            writeln!(f, "  tier {}", tier.name)?;
            for &list in &tier.policies {
                writeln!(f, "    {}", self.list_name(list))?;
            }
            match tier.end {
                TierEnd::Deny => writeln!(f, "    then deny: {}", self.outcome(tier.outcome).reason.text())?,
                TierEnd::Pass => writeln!(f, "    then pass: {}", self.outcome(tier.outcome).reason.text())?,
                TierEnd::Fall => writeln!(f, "    then fall through")?,
            }
        }
        match &chain.end {
            ChainEnd::Profiles(lists) => {
                for &list in lists {
                    writeln!(f, "  {}", self.list_name(list))?;
                }
                writeln!(f, "  then deny")
            }
            ChainEnd::Accept => writeln!(f, "  accept"),
            ChainEnd::Unmarked(outcome) => writeln!(f, "  leave: {}", self.outcome(*outcome).reason.text()),
        }
    }

    /// A rule list has no other name: a policy has one for each direction.
    fn list_name(&self, id: RuleListId) -> String {
        let list = &self.rule_lists[id.index()];
        format!("{} {}", list.policy, list.direction.name())
    }

    fn write_list(&self, f: &mut Formatter<'_>, list: &RuleList) -> fmt::Result {
        let tier = if list.tier.is_empty() { String::new() } else { format!(" in tier {}", list.tier) };
        writeln!(f, "\nrules {} {}{tier}", list.policy, list.direction.name())?;
        if list.rules.is_empty() {
            writeln!(f, "  none")?;
        }
        for rule in &list.rules {
            let origin = self.outcome(rule.outcome);
            let number = origin.rule.map_or_else(|| origin.reason.text().to_owned(), |rule| rule.to_string());
            writeln!(f, "  {number} {}", rule_text(rule))?;
        }
        Ok(())
    }
}

fn rule_text(rule: &Rule) -> String {
    let mut text = rule.action.name().to_owned();
    match rule.families {
        [true, true] => {}
        [true, false] => text.push_str(" v4"),
        [false, true] => text.push_str(" v6"),
        [false, false] => text.push_str(" never"),
    }
    let mut add = |name: &str, value: String| {
        let _ = write!(text, " {name} {value}");
    };
    if let Some(number) = rule.protocol {
        add("protocol", protocol_name(number));
    }
    if let Some(number) = rule.not_protocol {
        add("not protocol", protocol_name(number));
    }
    for (name, icmp) in [("icmp", rule.icmp), ("not icmp", rule.not_icmp)] {
        if let Some(icmp) = icmp {
            let code = icmp.code.map_or_else(String::new, |code| format!("/{code}"));
            add(name, format!("{}{code}", icmp.kind));
        }
    }
    write_side(&mut text, "from", &rule.source);
    write_side(&mut text, "to", &rule.destination);
    text
}

fn write_side(text: &mut String, word: &str, side: &Side) {
    for set in &side.in_sets {
        let _ = write!(text, " {word} a{}", set.index());
    }
    for set in &side.not_in_sets {
        let _ = write!(text, " {word} not a{}", set.index());
    }
    for (not, ports) in [("", &side.ports), ("not ", &side.not_ports)] {
        if let Some(ports) = ports {
            let _ = write!(text, " {word} {not}ports {}", port_match(ports));
        }
    }
}

fn port_match(ports: &PortMatch) -> String {
    let ranges = ports.ranges.iter().map(|&(first, last)| range(first, last));
    let named = ports.named.iter().map(|set| format!("p{}", set.index()));
    ranges.chain(named).collect::<Vec<_>>().join(",")
}

fn range<T: Display + PartialEq + Copy>(first: T, last: T) -> String {
    if first == last { first.to_string() } else { format!("{first}-{last}") }
}

fn addresses(set: &AddressSet) -> String {
    let v4 = set.v4.iter().map(|&(first, last)| {
        range(number_address(Family::V4, first.into()), number_address(Family::V4, last.into()))
    });
    let v6 = set
        .v6
        .iter()
        .map(|&(first, last)| range(number_address(Family::V6, first), number_address(Family::V6, last)));
    or_none(&v4.chain(v6).collect::<Vec<_>>(), " ")
}

fn or_none(texts: &[String], separator: &str) -> String {
    if texts.is_empty() { "none".to_owned() } else { texts.join(separator) }
}

fn port_members(set: &PortSet) -> String {
    let members: Vec<_> = set
        .members()
        .map(|(family, address, protocol, port)| {
            format!("{} {} {port}", number_address(family, address), protocol_name(protocol))
        })
        .collect();
    or_none(&members, ", ")
}

fn protocol_name(number: u8) -> String {
    match number {
        protocol::ICMP => "icmp".to_owned(),
        protocol::TCP => "tcp".to_owned(),
        protocol::UDP => "udp".to_owned(),
        protocol::ICMPV6 => "icmpv6".to_owned(),
        protocol::SCTP => "sctp".to_owned(),
        protocol::UDPLITE => "udplite".to_owned(),
        other => other.to_string(),
    }
}
