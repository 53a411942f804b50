//! Selectors for Python: checked, compared with labels, written canonically.

use std::collections::BTreeMap;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::selector::Selector;

fn parse(text: &str) -> PyResult<Selector> {
    Selector::parse(text).map_err(|error| PyValueError::new_err(error.to_string()))
}

#[pyfunction]
pub fn check_selector(text: &str) -> PyResult<()> {
    parse(text).map(|_| ())
}

#[pyfunction]
pub fn selector_canonical(text: &str) -> PyResult<String> {
    Ok(parse(text)?.canonical())
}

#[pyfunction]
#[allow(clippy::needless_pass_by_value)] // A dict arrives as an owned map.
pub fn selector_matches(text: &str, labels: BTreeMap<String, String>) -> PyResult<bool> {
    Ok(parse(text)?.matches(&labels))
}

/// Match and canonical text at once.
#[pyfunction]
#[allow(clippy::needless_pass_by_value)] // A dict arrives as an owned map.
pub fn selector_answer(text: &str, labels: BTreeMap<String, String>) -> PyResult<(bool, String)> {
    let selector = parse(text)?;
    Ok((selector.matches(&labels), selector.canonical()))
}

#[pyfunction]
pub fn selector_uses_global(text: &str) -> PyResult<bool> {
    Ok(parse(text)?.uses_global())
}

#[pyfunction]
pub fn selector_is_lone_global(text: &str) -> PyResult<bool> {
    Ok(parse(text)?.is_lone_global())
}
