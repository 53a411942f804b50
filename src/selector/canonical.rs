//! Canonical text and id of a selector (S-13, S-14).

use std::fmt::Write;

use super::{Comparison, Node};

pub fn text(node: &Node) -> String {
    let mut text = String::new();
    write_node(&mut text, node);
    text
}

fn write_node(text: &mut String, node: &Node) {
    match node {
        Node::All => text.push_str("all()"),
        Node::Global => text.push_str("global()"),
        Node::Has(key) => {
            let _ = write!(text, "has({key})");
        }
        Node::Compare(key, comparison, value) => {
            let operator = match comparison {
                Comparison::Equal => "==",
                Comparison::NotEqual => "!=",
                Comparison::Contains => "contains",
                Comparison::StartsWith => "starts with",
                Comparison::EndsWith => "ends with",
            };
            let _ = write!(text, "{key} {operator} {}", quoted(value));
        }
        Node::In(key, values) => {
            let _ = write!(text, "{key} in {}", set(values));
        }
        Node::NotIn(key, values) => {
            let _ = write!(text, "{key} not in {}", set(values));
        }
        Node::Not(inner) => {
            text.push('!');
            write_node(text, inner);
        }
        Node::And(members) => write_group(text, members, " && "),
        Node::Or(members) => write_group(text, members, " || "),
    }
}

fn write_group(text: &mut String, members: &[Node], separator: &str) {
    text.push('(');
    for (index, member) in members.iter().enumerate() {
        if index > 0 {
            text.push_str(separator);
        }
        write_node(text, member);
    }
    text.push(')');
}

/// A string never holds both kinds of quote (S-6).
fn quoted(value: &str) -> String {
    if value.contains('"') { format!("'{value}'") } else { format!("\"{value}\"") }
}

fn set(values: &[String]) -> String {
    let members: Vec<_> = values.iter().map(|value| quoted(value)).collect();
    format!("{{{}}}", members.join(", "))
}

/// 128-bit FNV-1a: stable over versions and machines; ids are names, nothing trusts them against an attacker.
pub fn id(canonical: &str) -> String {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let hash = canonical.bytes().fold(OFFSET, |hash, byte| (hash ^ u128::from(byte)).wrapping_mul(PRIME));
    format!("s:{hash:032x}")
}
