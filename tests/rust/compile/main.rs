//! From a model to a program: whole texts of the worked examples, tables by rule id, and properties.

// Models are built from `json!` literals, which are handed on.
#![allow(clippy::needless_pass_by_value)]

mod chains;
mod edits;
mod errors;
mod expressions;
mod families;
mod golden;
mod models;
mod read;
mod selection;
mod services;
mod shuffled;
