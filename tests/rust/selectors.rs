//! Section 2 of the semantics: tables 2.2, 2.3 and 2.4 as data (shared with the reference's tests), whole messages,
//! limits and properties.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

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
    serde_json::from_str(include_str!("../cases/selector-texts/tables.json"))
        .expect("the tables are JSON of this shape")
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

/// Equalities that hold in every match; nothing below `||` or `!` is certain.
#[test]
fn required_labels() {
    let cases: [(&str, &[(&str, &str)]); 5] = [
        ("a == 'x'", &[("a", "x")]),
        ("a in {'x'} && (b == 'y' && has(c)) && d != 'z'", &[("a", "x"), ("b", "y")]),
        ("a in {'x', 'y'}", &[]),
        ("a == 'x' || b == 'y'", &[]),
        ("!(a == 'x')", &[]),
    ];
    for (text, required) in cases {
        assert_eq!(Selector::parse(text).expect("a selector").required_labels(), required, "{text}");
    }
}

/// What is said of each text: a line for what it shows, then the whole message.
fn refusals<'a>(rows: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut said = String::new();
    for (why, text) in rows {
        let error = Selector::parse(text).expect_err(text);
        writeln!(said, "# {why}\n{error}\n").expect("text can be written");
    }
    said
}

/// The golden text; made anew where `UPDATE_GOLDEN` is set.
fn golden(name: &str, text: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/selectors").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&file, text).expect("the golden text can be written");
    }
    std::fs::read_to_string(file).expect("the golden text is there")
}

/// Table 2.4: each is refused, and the message says what was expected, what was found, and where.
#[test]
fn rejected_selectors() {
    let rows = tables().rejected;
    let said = refusals(rows.iter().map(|row| (row.why.as_str(), row.selector.as_str())));
    assert_eq!(said, golden("rejected.txt", &said));
}

/// Corners of section 2.1, and text that is hard to print.
#[test]
fn more_rejected_selectors() {
    let long_line = format!("{}a = 'b' && {}", "has(b) && ".repeat(20), "c".repeat(90));
    let rows = [
        ("a second word missing", "a ends 'x'"),
        ("a second word with more behind it", "a starts withx 'x'"),
        ("a set that never ends", "a in {'x',"),
        ("a comma twice", "a in {'x',,'y'}"),
        ("only a comma", "a in {,}"),
        ("one equals sign too many", "a === 'x'"),
        ("a string of another kind of quote", "a == ‘x’"),
        ("two names", "has(a b)"),
        ("a function inside a function", "has(all())"),
        ("a label named as a function", "global == x"),
        ("a function apart from its parenthesis", "global ()"),
        ("a line break first", "\nhas(a)"),
        ("a carriage return", "has(a) &&\r\nhas(b)"),
        ("a line break inside an operator", "a not\nin {'x'}"),
        ("lines inside a string: the line of the place is shown", "a == 'one\ntwo' has(b)\nthree"),
        ("an unterminated string after a word", "a is 'x"),
        ("a string as the operator", "a 'one\ntwo' b"),
        ("a blank that is none", "has(a)\u{a0}&& has(b)"),
        ("the caret stays under its place behind tabs", "\thas(a)\t&&\t&& has(b)"),
        ("what could upset a terminal", "a == '\u{1b}[31m' \u{7}"),
        ("characters of several bytes", "a == 'größer' und"),
        ("a word too long to repeat", &format!("a {}", "b".repeat(60))),
        ("a name too long inside a function", &format!("has({})", "b".repeat(600))),
        ("a long line", &long_line),
    ];
    let said = refusals(rows);
    assert_eq!(said, golden("more_rejected.txt", &said));
}

/// The offset is in bytes.
#[test]
fn places() {
    let place = |text: &str| Selector::parse(text).expect_err(text).offset();
    assert_eq!(["", "a == 'größer' ", "a == 'b' && "].map(|start| place(&format!("{start}%"))), [0, 16, 12]);
}

/// Nesting takes no stack while it is read, and the tree's is bounded; what is accepted has canonical text that is
/// accepted. A test build uses the most stack.
#[test]
fn depth_is_bounded() {
    let small_stack = 512 << 10;
    let check = std::thread::Builder::new().stack_size(small_stack).spawn(|| {
        let nested = |open: &str, times| format!("{}has(a){}", open.repeat(times), ")".repeat(times));
        let labels = BTreeMap::from([("a".to_owned(), String::new())]);
        for (open, deepest) in
            [("(", 300_000), ("!(", 300_000), ("all() && !(", 256), ("!has(a) || all() && (", 128)]
        {
            let selector = Selector::parse(&nested(open, deepest)).expect("not too deep");
            assert!(selector.matches(&labels) && !(!selector.clone()).matches(&labels), "{open}");
            assert_eq!(Selector::parse(&selector.canonical()), Ok(selector));
        }
        let refused = |text: &str| {
            let error = Selector::parse(text).expect_err("refused");
            (error.message().to_owned(), error.offset())
        };
        let deep = "`&&` and `||` nested deeper than 256 levels".to_owned();
        let ends = |open: &str, times, closed| open.len() * times + "has(a)".len() + closed;
        assert_eq!(refused(&nested("all() && (", 257)), (deep.clone(), ends("all() && (", 257, 257)));
        assert_eq!(
            refused(&nested("all() || all() && (", 9_000)),
            (deep, ends("all() || all() && (", 9_000, 130))
        );
        let unclosed =
            "expected a label name, `has(`, `all()`, `global()`, `!` or `(`, found the end of the selector";
        assert_eq!(refused(&"(!".repeat(300_000)), (unclosed.to_owned(), 600_000));
    });
    check.expect("a thread").join().expect("no overflow, and all as asserted");
}

/// Long texts take no stack, and no more than linear time: with quadratic time this test would not end.
#[test]
fn length_is_not_bounded() {
    let many = 300_000;
    let negated = Selector::parse(&format!("{}has(a)", "! ".repeat(many + 1))).expect("valid");
    assert_eq!(negated.canonical(), "!has(a)");
    let member = |index: usize| format!("'v{index:06}'");
    let members: Vec<_> = (0..many).rev().map(member).collect();
    let set = Selector::parse(&format!("a in {{{},}}", members.join(","))).expect("valid");
    let labels = |value: &str| BTreeMap::from([("a".to_owned(), value.to_owned())]);
    assert_eq!(
        ["v000000", "v299999", "v300000"].map(|value| set.matches(&labels(value))),
        [true, true, false]
    );
    let group = Selector::parse(&vec!["a != 'x'"; many].join(" && ")).expect("valid");
    assert_eq!(["x", "y"].map(|value| group.matches(&labels(value))), [false, true]);
}

/// S-3..S-6: where blanks may be and may be missing, and words that are labels.
#[test]
fn spellings() {
    let canonical = |text: &str| Selector::parse(text).expect("valid").canonical();
    let rows = [
        ("a\tstarts \twith'x'", "a starts with \"x\""),
        ("a\tends with\t'x'", "a ends with \"x\""),
        ("a not\t in{ 'x' , \"y\" , }\t", "a not in {\"x\", \"y\"}"),
        ("has(\ta )&&! !\t!global( )", "(has(a) && !global())"),
        (
            "all == 'x' && has != 'y' && global in {} && not not in {}",
            "(all == \"x\" && has != \"y\" && global in {} && not not in {})",
        ),
        ("-1/. contains 'line\nbreak \\'", "-1/. contains \"line\nbreak \\\""),
    ];
    assert_eq!(rows.map(|(text, _)| canonical(text)), rows.map(|(_, expected)| expected.to_owned()));
}

/// S-2, S-13: negations fold through parentheses too, so that canonical text is its own canonical text.
#[test]
fn negations_fold() {
    let canonical = |text: &str| Selector::parse(text).expect("valid").canonical();
    let texts = ["!(!has(a))", "!(!(!has(a)))", "! ! (has(a) && !(!has(b)))", "!(!has(a) || !has(b))"];
    let expected = ["has(a)", "!has(a)", "(has(a) && has(b))", "!(!has(a) || !has(b))"];
    assert_eq!(texts.map(canonical), expected);
}

/// S-14: ids are stable; the values are those of any other 128-bit FNV-1a.
#[test]
fn ids() {
    let id = |text: &str| Selector::parse(text).expect("valid").id();
    assert_eq!(id(" all( ) "), "s:328375a55783d94f7081448bdc5135f7");
    assert_eq!(id("a=='x'"), "s:fcf8b496d9659b4e92b4b950d8b970ea");
}

/// What is built by hand is what would be parsed.
#[test]
fn built_selectors() {
    let values = ["y", "x", "y"].map(str::to_owned);
    let built =
        Selector::and(vec![Selector::equals("a", "b"), Selector::one_of("c", values), !Selector::has("d")]);
    assert_eq!(Ok(built), Selector::parse("a == 'b' && c in {'x', 'y'} && !has(d)"));
    assert_eq!(Selector::and(vec![]), Selector::all());
    assert_eq!(Selector::and(vec![Selector::has("a")]), Selector::has("a"));
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

/// What selectors are made of.
const PIECES: &[&str] = &[
    " ",
    "\t",
    "a",
    "b.c/d-e_f",
    "all(",
    "has(",
    "global(",
    "(",
    ")",
    "!",
    "==",
    "!=",
    "contains",
    "starts",
    "with",
    "endswith",
    "not",
    "in",
    "{",
    "}",
    ",",
    "'x'",
    "\"y\"",
    "&&",
    "||",
    "\n",
    "é",
];

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
        prop_assert_eq!(&again, &selector);
        prop_assert_eq!(&again.canonical(), &canonical);
        prop_assert_eq!(again.matches(&labels), selector.matches(&labels));
        prop_assert_eq!((!selector.clone()).matches(&labels), !selector.matches(&labels));
    }

    /// Whatever matches has the required labels: finding candidates by them loses nothing.
    #[test]
    fn required_labels_are_in_every_match(text in selector_text(), labels in label_sets()) {
        let selector = Selector::parse(&text).expect("generated text is valid");
        if selector.matches(&labels) {
            for (key, value) in selector.required_labels() {
                prop_assert_eq!(labels.get(key).map(String::as_str), Some(value));
            }
        }
    }

    /// Any bytes that are text, likely and unlikely, are parsed or refused with a message that can be printed; never
    /// a panic.
    #[test]
    fn any_text_is_answered(
        bytes in any::<Vec<u8>>(),
        noise in r#"[abn!&|(){}'" =,ï\n\t.hasintglob]{0,60}"#,
        pieces in proptest::collection::vec(proptest::sample::select(PIECES), 0..24),
    ) {
        for text in [String::from_utf8_lossy(&bytes).into_owned(), noise, pieces.concat()] {
            match Selector::parse(&text) {
                Ok(selector) => prop_assert_eq!(Selector::parse(&selector.canonical()), Ok(selector)),
                Err(error) => prop_assert!(text.is_char_boundary(error.offset()) && !error.to_string().is_empty()),
            }
        }
    }
}
