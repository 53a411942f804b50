//! Selectors for Python: checked, compared with labels, written canonically.

use std::collections::BTreeMap;

use pyo3::prelude::*;

use super::value_error;
use crate::selector::Selector;

fn parse(text: &str) -> PyResult<Selector> {
    Selector::parse(text).map_err(value_error)
}

#[pyfunction]
pub fn check_selector(text: &str) -> PyResult<()> {
    parse(text).map(|_| ())
}

/// Match and canonical text at once.
#[pyfunction]
#[allow(clippy::needless_pass_by_value)] // A dict arrives as an owned map.
pub fn selector_answer(text: &str, labels: BTreeMap<String, String>) -> PyResult<(bool, String)> {
    let selector = parse(text)?;
    Ok((selector.matches(&labels), selector.canonical()))
}
