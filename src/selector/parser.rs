//! The grammar of semantics 2.1: `&&` binds tighter than `||`, `!` tighter than both. Open parentheses are kept on a
//! stack of our own, so that no text can exhaust the thread's.

use std::collections::BTreeSet;
use std::mem;

use super::error::SelectorError;
use super::lexer::Lexer;
use super::{Comparison, Node, group, negate};

/// How deep groups of `&&` and `||` may nest: evaluating, printing and dropping a tree takes stack. Parentheses that
/// group nothing do not count, so canonical text is accepted wherever its source was.
const DEEPEST: usize = 256;

const OPERATORS: &str =
    "an operator (`==`, `!=`, `contains`, `starts with`, `ends with`, `in` or `not in`) after the label name";

/// Parses the whole text.
pub fn parse(text: &str) -> Result<Node, SelectorError> {
    let mut parser = Parser { lexer: Lexer::new(text), group: Group::default(), enclosing: Vec::new() };
    parser.lexer.skip_blanks();
    if parser.lexer.is_at_end() {
        return Ok(Node::All);
    }
    loop {
        parser.open();
        let node = parser.operand()?;
        parser.group.push(Part { node, height: 0 });
        parser.close()?;
        if parser.symbol("||") {
            parser.group.end_alternative();
        } else if !parser.symbol("&&") {
            return parser.finish();
        }
    }
}

/// A part of the tree, and how deep groups nest in it.
struct Part {
    node: Node,
    height: usize,
}

impl Part {
    /// A group, or its only member.
    fn of(members: Vec<Self>, make: fn(Vec<Node>) -> Node) -> Self {
        let tallest = members.iter().map(|member| member.height).max().unwrap_or_default();
        let height = tallest + usize::from(members.len() > 1);
        Self { node: group(members.into_iter().map(|member| member.node).collect(), make), height }
    }
}

/// The inside of one pair of parentheses, or the whole text, as far as it is read.
#[derive(Default)]
struct Group {
    /// What `||` has ended.
    alternatives: Vec<Part>,
    /// What `&&` joins behind the last `||`.
    operands: Vec<Part>,
    /// S-2: an odd number of `!` stands before the next operand.
    is_negated: bool,
}

impl Group {
    fn push(&mut self, Part { node, height }: Part) {
        let node = if mem::take(&mut self.is_negated) { negate(node) } else { node };
        self.operands.push(Part { node, height });
    }

    fn end_alternative(&mut self) {
        self.alternatives.push(Part::of(mem::take(&mut self.operands), Node::And));
    }

    fn finish(mut self) -> Part {
        self.end_alternative();
        Part::of(self.alternatives, Node::Or)
    }
}

/// Every method takes the blanks behind what it reads.
struct Parser<'a> {
    lexer: Lexer<'a>,
    group: Group,
    enclosing: Vec<Group>,
}

impl<'a> Parser<'a> {
    /// All `!` and `(` before an operand.
    fn open(&mut self) {
        loop {
            if self.symbol("!") {
                self.group.is_negated = !self.group.is_negated;
            } else if self.symbol("(") {
                self.enclosing.push(mem::take(&mut self.group));
            } else {
                return;
            }
        }
    }

    /// All `)` behind an operand, as far as parentheses are open.
    fn close(&mut self) -> Result<(), SelectorError> {
        while !self.enclosing.is_empty() && self.symbol(")") {
            let outer = self.enclosing.pop().unwrap_or_default();
            let inner = mem::replace(&mut self.group, outer);
            let part = self.bounded(inner)?;
            self.group.push(part);
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Node, SelectorError> {
        if !self.enclosing.is_empty() {
            return Err(self.lexer.expected("`&&`, `||` or `)`"));
        }
        if !self.lexer.is_at_end() {
            return Err(self.lexer.expected("`&&`, `||` or the end of the selector"));
        }
        let group = mem::take(&mut self.group);
        self.bounded(group).map(|part| part.node)
    }

    fn bounded(&self, group: Group) -> Result<Part, SelectorError> {
        let part = group.finish();
        if part.height > DEEPEST {
            return Err(self.lexer.error(format!("`&&` and `||` nested deeper than {DEEPEST} levels")));
        }
        Ok(part)
    }

    /// A function or a comparison.
    fn operand(&mut self) -> Result<Node, SelectorError> {
        // S-4: a function only where the parenthesis follows the word at once; else the word is a label.
        for (function, constant) in [("all(", Node::All), ("global(", Node::Global)] {
            if self.symbol(function) {
                self.end_of_function(&format!("`)`, as `{function})` takes nothing"))?;
                return Ok(constant);
            }
        }
        if self.symbol("has(") {
            let name = self.lexer.name("a label name")?.to_owned();
            self.lexer.skip_blanks();
            self.end_of_function("`)` after the label name")?;
            return Ok(Node::Has(name));
        }
        self.comparison()
    }

    /// `label operator value`.
    fn comparison(&mut self) -> Result<Node, SelectorError> {
        let key = self.lexer.name("a label name, `has(`, `all()`, `global()`, `!` or `(`")?.to_owned();
        self.lexer.skip_blanks();
        for (symbol, comparison) in [("==", Comparison::Equal), ("!=", Comparison::NotEqual)] {
            if self.symbol(symbol) {
                return Ok(Node::Compare(key, comparison, self.string()?));
            }
        }
        let before = self.lexer;
        let comparison = match self.word() {
            "contains" => Comparison::Contains,
            "startswith" => Comparison::StartsWith,
            "endswith" => Comparison::EndsWith,
            "starts" => self.second_word("starts", "with", Comparison::StartsWith)?,
            "ends" => self.second_word("ends", "with", Comparison::EndsWith)?,
            "in" => return Ok(Node::In(key, self.set()?)),
            "notin" => return Ok(Node::NotIn(key, self.set()?)),
            "not" => {
                self.second_word("not", "in", ())?;
                return Ok(Node::NotIn(key, self.set()?));
            }
            _ => return Err(before.expected(&format!("{OPERATORS}{}", hint(&key)))),
        };
        Ok(Node::Compare(key, comparison, self.string()?))
    }

    /// S-7.
    fn set(&mut self) -> Result<Vec<String>, SelectorError> {
        if !self.symbol("{") {
            return Err(self.lexer.expected("a set of strings in braces, such as {\"a\", \"b\"}"));
        }
        let mut members = BTreeSet::new();
        let mut expected = "a string in quotes or `}`";
        while let Some(member) = self.lexer.string()? {
            members.insert(member.to_owned());
            self.lexer.skip_blanks();
            if !self.symbol(",") {
                expected = "`,` or `}`";
                break;
            }
        }
        if self.symbol("}") { Ok(members.into_iter().collect()) } else { Err(self.lexer.expected(expected)) }
    }

    fn string(&mut self) -> Result<String, SelectorError> {
        let string = self.lexer.string()?.ok_or_else(|| self.lexer.expected("a string in quotes"))?;
        self.lexer.skip_blanks();
        Ok(string.to_owned())
    }

    fn end_of_function(&mut self, expected: &str) -> Result<(), SelectorError> {
        if self.symbol(")") { Ok(()) } else { Err(self.lexer.expected(expected)) }
    }

    /// The rest of an operator of two words, which stands for `operator`.
    fn second_word<T>(&mut self, first: &str, second: &str, operator: T) -> Result<T, SelectorError> {
        let before = self.lexer;
        if self.word() == second {
            Ok(operator)
        } else {
            Err(before.expected(&format!("`{second}` after `{first}`")))
        }
    }

    fn word(&mut self) -> &'a str {
        let word = self.lexer.word();
        self.lexer.skip_blanks();
        word
    }

    fn symbol(&mut self, symbol: &str) -> bool {
        let found = self.lexer.take(symbol);
        if found {
            self.lexer.skip_blanks();
        }
        found
    }
}

/// S-4: `has`, `all` and `global` are labels where no parenthesis follows at once, which is seldom what was meant.
fn hint(key: &str) -> &'static str {
    match key {
        "has" => " (the function is written `has(name)`, without a blank)",
        "all" => " (the function is written `all()`, without a blank)",
        "global" => " (the function is written `global()`, without a blank)",
        _ => "",
    }
}
