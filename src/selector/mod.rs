//! Label selectors: lexer, parser, evaluation and canonical text (semantics section 2).
//!
//! The API that the rest of the crate builds on (bodies to be written):
//! ```text
//! Selector::parse(text) -> Result<Selector, SelectorError>      // S-1..S-12; SelectorError: message + caret
//! selector.matches(&impl Labels) -> bool                        // S-8..S-11; trait Labels { fn get(&self, key:&str)->Option<&str> }
//! selector.canonical() -> String                                // S-13
//! selector.id() -> String                                       // S-14
//! selector.prefixed("pcns.") -> Selector                        // every label name prefixed (M-21)
//! selector.with_all_and_global(all: &Selector, global: &Selector) -> Selector  // M-22, on the tree
//! selector.uses_global() -> bool / selector.is_lone_global()     // V-35, V-36
//! Selector::all(), ::equals(k, v), ::in_set(k, values), ::has(k), ::and(vec), ::not(x)
//! ```
