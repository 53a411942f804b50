//! Section 2 of the semantics: tables 2.2, 2.3 and 2.4 as data (shared with the reference's tests), whole messages,
//! and properties.

use std::collections::BTreeMap;

use labelgate::selector::Selector;
use proptest::prelude::*;
use serde::Deserialize;

#[derive(Deserialize)]
struct Tables {
    truth: Vec<Truth>,
    canonical: Vec<Canonical>,
    rejected: Vec<Rejected>,
}

#[derive(Deserialize)]
struct Truth {
    row: u32,
    selector: String,
    labels: BTreeMap<String, String>,
    #[serde(rename = "match")]
    matches: bool,
}

#[derive(Deserialize)]
struct Canonical {
    selector: String,
    canonical: String,
}

#[derive(Deserialize)]
struct Rejected {
    selector: String,
    why: String,
}

fn tables() -> Tables {
    serde_json::from_str(include_str!("../data/selectors.json")).expect("the tables are JSON of this shape")
}

/// Table 2.2 (S-1..S-12).
#[test]
fn truth_table() {
    let rows = tables().truth;
    assert_eq!(rows.len(), 44);
    for row in rows {
        let selector = Selector::parse(&row.selector).unwrap_or_else(|e| panic!("row {}: {e}", row.row));
        assert_eq!(selector.matches(&row.labels), row.matches, "row {}: {}", row.row, row.selector);
    }
}

/// Table 2.3 (S-13); canonical text is its own canonical text, and equal text has an equal id (S-14).
#[test]
fn canonical_forms() {
    for row in tables().canonical {
        let selector = Selector::parse(&row.selector).expect("table 2.3 holds valid selectors");
        assert_eq!(selector.canonical(), row.canonical);
        let again = Selector::parse(&row.canonical).expect("canonical text is valid");
        assert_eq!((&again, again.id()), (&selector, selector.id()));
    }
}

/// Table 2.4.
#[test]
fn rejected_selectors() {
    for row in tables().rejected {
        let parsed = Selector::parse(&row.selector).map(|selector| selector.canonical());
        assert!(parsed.is_err(), "{} ({}) gave {parsed:?}", row.selector, row.why);
    }
}

/// Whole messages: what was expected, what was found, the place.
#[test]
fn messages() {
    let said = |text: &str| Selector::parse(text).expect_err("rejected").to_string();
    let operators = "expected an operator (`==`, `!=`, `contains`, `starts with`, `ends with`, `in` or `not in`) \
                     after the label name, found";
    let cases = [
        ("role = 'x'", format!("{operators} `=`\n  role = 'x'\n       ^")),
        ("role", format!("{operators} the end of the selector\n  role\n      ^")),
        ("a containsx 'y'", format!("{operators} `containsx`\n  a containsx 'y'\n    ^")),
        ("a == b", "expected a string in quotes, found `b`\n  a == b\n       ^".into()),
        ("a == 'b", "unterminated string: expected a closing '\n  a == 'b\n       ^".into()),
        ("a in 'x'", "expected a set of strings in braces, such as {\"a\", \"b\"}, found a string in '\n  \
                      a in 'x'\n       ^".into()),
        ("a in {'x' 'y'}", "expected a string in quotes, `,` or `}`, found a string in '\n  \
                            a in {'x' 'y'}\n            ^".into()),
        ("(has(a)", "expected `&&`, `||` or `)`, found the end of the selector\n  (has(a)\n         ^".into()),
        ("has(a) has(b)", "expected `&&`, `||` or the end, found `has`\n  has(a) has(b)\n         ^".into()),
        ("has()", "expected a label name, found `)`\n  has()\n      ^".into()),
        ("all(a)", "expected `)`: `all()` takes nothing, found `a`\n  all(a)\n      ^".into()),
        ("&& has(a)", "expected a label name, `has(`, `all()`, `global()`, `!` or `(`, found `&`\n  \
                       && has(a)\n  ^".into()),
        ("has(a)\n", "expected `&&`, `||` or the end, found a line break (only spaces and tabs may separate words)\n  \
                      has(a)\n        ^".into()),
    ];
    for (text, message) in cases {
        assert_eq!(said(text), message, "{text}");
    }
    let long = format!("{} == 'x'", "n".repeat(513));
    let error = Selector::parse(&long).expect_err("rejected");
    assert_eq!(error.message(), "label name too long: found 513 characters, expected at most 512");
    let deep = format!("{}has(a){}", "(".repeat(129), ")".repeat(129));
    let error = Selector::parse(&deep).expect_err("rejected");
    assert_eq!((error.message(), error.offset()), ("parentheses nested deeper than 128", 129));
}

/// M-21, M-22: prefixes reach every label name; `all()` and `global()` are replaced on the tree, not in strings.
#[test]
fn rewriting() {
    let selector =
        Selector::parse("!all() || global() || a in {'all()'} && !has(b) || c != 'x'").expect("valid");
    let in_namespace = Selector::has("projectcalico.org/namespace");
    let rewritten = selector.prefixed("pcns.").with_all_and_global(&in_namespace, &!in_namespace.clone());
    assert_eq!(
        rewritten.canonical(),
        "(!has(projectcalico.org/namespace) || !has(projectcalico.org/namespace) || \
         (pcns.a in {\"all()\"} && !has(pcns.b)) || pcns.c != \"x\")"
    );
    assert!(selector.uses_global() && !selector.is_lone_global() && !rewritten.uses_global());
    assert!(Selector::parse(" ( global( ) ) ").expect("valid").is_lone_global());
}

/// Text of selectors: nested, negated, with every operator; and label sets over the same few names and values.
fn selector_text() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("all()".to_owned()),
        Just("global()".to_owned()),
        "[abc]".prop_map(|key| format!("has({key})")),
        ("[abc]", "==|!=|contains|starts with|endswith", "[xy]{0,2}")
            .prop_map(|(k, o, v)| format!("{k} {o} '{v}'")),
        ("[abc]", "in|not in|notin", proptest::collection::vec("'[xy]{0,2}'", 0..3))
            .prop_map(|(key, operator, values)| format!("{key} {operator} {{{}}}", values.join(","))),
    ];
    leaf.prop_recursive(4, 24, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|inner| format!("!({inner})")),
            proptest::collection::vec(inner.clone(), 1..4).prop_map(|all| format!("({})", all.join(" && "))),
            proptest::collection::vec(inner, 1..4).prop_map(|any| format!("({})", any.join("||"))),
        ]
    })
}

fn label_sets() -> impl Strategy<Value = BTreeMap<String, String>> {
    proptest::collection::btree_map("[abcd]", "[xy]{0,2}", 0..4)
}

proptest! {
    /// Canonical text means the same and is its own canonical text (S-13).
    #[test]
    fn canonical_text_means_the_same(text in selector_text(), labels in label_sets()) {
        let selector = Selector::parse(&text).expect("generated text is valid");
        let canonical = selector.canonical();
        let again = Selector::parse(&canonical).expect("canonical text is valid");
        prop_assert_eq!(&again.canonical(), &canonical);
        prop_assert_eq!(again.matches(&labels), selector.matches(&labels));
        prop_assert_eq!((!selector.clone()).matches(&labels), !selector.matches(&labels));
    }

    /// Any text is parsed or refused with a message that can be printed; never a panic.
    #[test]
    fn any_text_is_answered(text in any::<String>(), noise in r#"[abn!&|(){}'" =,\n\t.hasintglob]{0,60}"#) {
        for text in [text, noise] {
            if let Err(error) = Selector::parse(&text) {
                prop_assert!(error.offset() <= text.len() && !error.to_string().is_empty());
            }
        }
    }
}
