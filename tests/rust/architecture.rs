//! Who may import whom (ARCHITECTURE.md), and where unsafe code may be: read from the sources themselves.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Module to the modules of ours that it may name.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("flow", &[]),
    ("labels", &[]),
    ("selector", &["labels"]),
    ("model", &["selector", "labels", "flow"]),
    ("program", &["flow"]),
    ("compile", &["model", "selector", "labels", "program", "flow"]),
    ("table", &["program", "flow", "model"]),
    ("compare", &["program", "table", "flow"]),
    ("wire", &["flow"]),
    ("capture", &["flow", "wire"]),
    ("netlink", &[]),
    ("conntrack", &["flow", "netlink"]),
    ("nfqueue", &["netlink"]),
    ("load", &["nfqueue"]),
    ("workload", &["model", "flow", "compile", "program", "table"]),
    ("enforce", &["flow", "wire", "table", "nfqueue"]),
    (
        "python",
        &[
            "flow",
            "labels",
            "selector",
            "model",
            "program",
            "compile",
            "table",
            "compare",
            "workload",
            "wire",
            "nfqueue",
            "enforce",
            "load",
            "capture",
            "conntrack",
        ],
    ),
];

/// Files that may hold unsafe code.
const MAY_BE_UNSAFE: &[&str] = &[
    "load/source.rs",
    "nfqueue/socket.rs",
    "table/classes/image.rs",
    "table/pages.rs",
    "table/prefetch.rs",
    "table/tree/simd.rs",
];

/// Files that call the system by libc; its constants may stand anywhere.
const CALL_THE_SYSTEM: &[&str] = &["load/source.rs", "nfqueue/socket.rs", "table/pages.rs"];

/// A file above this has become hard to name.
const MOST_LINES: usize = 620;

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("the source folder is readable") {
        let path = entry.expect("a folder entry is readable").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// Every source file below `src`, as (path from `src`, code without comment lines).
fn files() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    sources(&root)
        .into_iter()
        .map(|path| {
            let name = path.strip_prefix(&root).expect("below src").to_string_lossy().into_owned();
            let text = fs::read_to_string(&path).expect("a source file is text");
            let code: Vec<_> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
            (name, code.join("\n"))
        })
        .collect()
}

fn module_of(file: &str) -> &str {
    file.split(['/', '.']).next().expect("a path has a first part")
}

/// The modules that code names as `crate::module` or `crate::{module, module}`.
fn imports(code: &str) -> Vec<String> {
    code.match_indices("crate::")
        .flat_map(|(at, found)| {
            let rest = &code[at + found.len()..];
            let list = rest.strip_prefix('{').map(|rest| rest.split('}').next().unwrap_or_default());
            list.unwrap_or(rest).split(',').take(if list.is_some() { usize::MAX } else { 1 })
        })
        .map(|name| name.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect())
        .collect()
}

#[test]
fn imports_point_one_way() {
    let allowed: BTreeMap<_, _> = MAY_IMPORT.iter().copied().collect();
    let mut wrong = Vec::new();
    for (file, code) in files().iter().filter(|(file, _)| file != "lib.rs") {
        let module = module_of(file);
        let may = allowed.get(module).unwrap_or_else(|| panic!("`{file}` is in no row of MAY_IMPORT"));
        for import in imports(code) {
            if import != module && allowed.contains_key(import.as_str()) && !may.contains(&import.as_str()) {
                wrong.push(format!("{file} names crate::{import}"));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn only_python_names_pyo3() {
    let named =
        files().into_iter().filter(|(file, code)| module_of(file) != "python" && code.contains("pyo3"));
    assert_eq!(named.map(|(file, _)| file).collect::<Vec<_>>(), Vec::<String>::new());
}

#[test]
fn unsafe_code_is_where_it_is_listed() {
    let is_unsafe =
        |code: &str| ["unsafe {", "unsafe fn", "unsafe impl"].iter().any(|marker| code.contains(marker));
    let found = files()
        .into_iter()
        .filter(|(file, code)| is_unsafe(code) && !MAY_BE_UNSAFE.contains(&file.as_str()))
        .map(|(file, _)| file);
    assert_eq!(found.collect::<Vec<_>>(), Vec::<String>::new());
}

/// Whether code calls a function of libc: `libc::name(`, where types and constants have no bracket.
fn calls_libc(code: &str) -> bool {
    code.split("libc::").skip(1).any(|rest| {
        let name =
            rest.trim_start_matches(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        name.len() < rest.len() && name.starts_with('(')
    })
}

#[test]
fn the_system_is_called_where_it_is_listed() {
    let found = files().into_iter().filter(|(_, code)| calls_libc(code)).map(|(file, _)| file);
    let mut found: Vec<_> = found.collect();
    found.sort_unstable();
    assert_eq!(found, CALL_THE_SYSTEM);
}

#[test]
fn files_stay_small() {
    let long = files().into_iter().filter_map(|(file, code)| {
        let lines = code.split("#[cfg(test)]\nmod tests").next().unwrap_or_default().lines().count();
        (lines > MOST_LINES).then(|| format!("{file}: {lines} lines"))
    });
    assert_eq!(long.collect::<Vec<_>>(), Vec::<String>::new());
}
