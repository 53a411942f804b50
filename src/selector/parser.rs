//! The grammar of semantics 2.1, by recursive descent: `&&` binds tighter than `||`, `!` tighter than both.

use std::collections::BTreeSet;

use super::error::SelectorError;
use super::lexer::Lexer;
use super::{Comparison, Node, group, negate};

/// Keeps the recursion far from the end of any stack; nobody nests a tenth as deep.
const DEEPEST: usize = 128;

const OPERATORS: &str =
    "an operator (`==`, `!=`, `contains`, `starts with`, `ends with`, `in` or `not in`) after the label name";

/// Parses the whole text.
pub fn parse(text: &str) -> Result<Node, SelectorError> {
    let mut parser = Parser { lexer: Lexer::new(text), depth: 0 };
    parser.lexer.skip_blanks();
    if parser.lexer.is_at_end() {
        return Ok(Node::All);
    }
    let node = parser.or()?;
    if parser.lexer.is_at_end() { Ok(node) } else { Err(parser.lexer.expected("`&&`, `||` or the end")) }
}

/// Every method takes the blanks behind what it reads.
struct Parser<'a> {
    lexer: Lexer<'a>,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn or(&mut self) -> Result<Node, SelectorError> {
        let mut members = vec![self.and()?];
        while self.symbol("||") {
            members.push(self.and()?);
        }
        Ok(group(members, Node::Or))
    }

    fn and(&mut self) -> Result<Node, SelectorError> {
        let mut members = vec![self.unary()?];
        while self.symbol("&&") {
            members.push(self.unary()?);
        }
        Ok(group(members, Node::And))
    }

    /// S-2.
    fn unary(&mut self) -> Result<Node, SelectorError> {
        let mut is_negated = false;
        while self.symbol("!") {
            is_negated = !is_negated;
        }
        let node = self.primary()?;
        Ok(if is_negated { negate(node) } else { node })
    }

    fn primary(&mut self) -> Result<Node, SelectorError> {
        if self.symbol("(") {
            return self.parenthesised();
        }
        // S-4: a function only where the parenthesis follows the word at once; else the word is a label.
        for (function, constant) in [("all(", Node::All), ("global(", Node::Global)] {
            if self.symbol(function) {
                self.close(&format!("`)`: `{function})` takes nothing"))?;
                return Ok(constant);
            }
        }
        if self.symbol("has(") {
            let name = self.lexer.name("a label name")?.to_owned();
            self.lexer.skip_blanks();
            self.close("`)` after the label name")?;
            return Ok(Node::Has(name));
        }
        self.comparison()
    }

    fn parenthesised(&mut self) -> Result<Node, SelectorError> {
        if self.depth == DEEPEST {
            return Err(self.lexer.error(format!("parentheses nested deeper than {DEEPEST}")));
        }
        self.depth += 1;
        let node = self.or()?;
        self.close("`&&`, `||` or `)`")?;
        self.depth -= 1;
        Ok(node)
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
        let word = self.word();
        let comparison = match word {
            "contains" => Comparison::Contains,
            "startswith" => Comparison::StartsWith,
            "endswith" => Comparison::EndsWith,
            "starts" if self.word() == "with" => Comparison::StartsWith,
            "ends" if self.word() == "with" => Comparison::EndsWith,
            "in" => return Ok(Node::In(key, self.set()?)),
            "notin" => return Ok(Node::NotIn(key, self.set()?)),
            "not" if self.word() == "in" => return Ok(Node::NotIn(key, self.set()?)),
            _ => return Err(before.expected(OPERATORS)),
        };
        Ok(Node::Compare(key, comparison, self.string()?))
    }

    /// S-7.
    fn set(&mut self) -> Result<Vec<String>, SelectorError> {
        if !self.symbol("{") {
            return Err(self.lexer.expected("a set of strings in braces, such as {\"a\", \"b\"}"));
        }
        let mut members = BTreeSet::new();
        while let Some(member) = self.lexer.string()? {
            members.insert(member.to_owned());
            self.lexer.skip_blanks();
            if !self.symbol(",") {
                break;
            }
        }
        if self.symbol("}") {
            Ok(members.into_iter().collect())
        } else {
            Err(self.lexer.expected("a string in quotes, `,` or `}`"))
        }
    }

    fn string(&mut self) -> Result<String, SelectorError> {
        let string = self.lexer.string()?.ok_or_else(|| self.lexer.expected("a string in quotes"))?;
        self.lexer.skip_blanks();
        Ok(string.to_owned())
    }

    fn close(&mut self, expected: &str) -> Result<(), SelectorError> {
        if self.symbol(")") { Ok(()) } else { Err(self.lexer.expected(expected)) }
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
