//! Checks that the crate's modules depend in one direction: a storey names only those below it.

use std::fs;
use std::path::{Path, PathBuf};

/// The modules of each storey, from the lowest up. Modules of one storey do not name each other.
const STOREYS: [&[&str]; 4] = [
    &["error", "fetch", "metrics"],
    &["access"],
    &["run"],
    &["routes", "programs"],
];

/// The modules that assemble the server. They may name all others.
const ROOT: [&str; 6] = [
    "agent_files",
    "assemble",
    "ledger_clock",
    "lib",
    "settings",
    "storeys",
];

/// Returns a module's storey; `None` if it belongs to none.
fn storey(module: &str) -> Option<usize> {
    STOREYS.iter().position(|modules| modules.contains(&module))
}

/// Returns the reason why `from` must not name `to`, if there is one.
fn objection(from: &str, to: &str) -> Option<String> {
    let from_storey = storey(from)?;
    if from == to {
        return None;
    }
    match storey(to) {
        Some(to_storey) if to_storey < from_storey || to_storey == 0 => None,
        Some(_) => Some(format!("`{from}` names `{to}`, which is not below it")),
        None => Some(format!("`{from}` names `{to}`, which is in no storey")),
    }
}

/// Returns the modules after each `crate::` of a source without its tests.
fn named(source: &str) -> Vec<&str> {
    let product = source.split("#[cfg(test)]\nmod tests {").next();
    let lines = product.unwrap_or_default().lines().map(str::trim_start);
    lines
        .filter(|line| !line.starts_with("//"))
        .flat_map(|line| line.split("crate::").skip(1))
        .map(|rest| {
            let end = rest.find(|c: char| !c.is_ascii_lowercase() && c != '_');
            &rest[..end.unwrap_or(rest.len())]
        })
        .collect()
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.file_name().is_some_and(|name| name != "tests.rs") {
            found.push(path);
        }
    }
}

#[test]
fn no_module_names_one_above_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut objections = Vec::new();
    for file in files {
        let path = file.strip_prefix(&root).unwrap();
        let first = path.iter().next().unwrap().to_str().unwrap();
        let module = first.trim_end_matches(".rs");
        assert!(
            storey(module).is_some() || ROOT.contains(&module),
            "give `{module}` a storey"
        );
        let source = fs::read_to_string(&file).unwrap();
        let objected = named(&source)
            .into_iter()
            .filter_map(|to| objection(module, to));
        objections.extend(objected.map(|objection| format!("{}: {objection}", path.display())));
    }
    assert!(objections.is_empty(), "{}", objections.join("\n"));
}

#[test]
fn an_arrow_upwards_is_found() {
    let source = "use crate::access::Caller;\nuse crate::routes::sse;\n// crate::programs\n\
                  fn f() { crate::run::submit() }\n#[cfg(test)]\nmod tests {\nuse crate::state;\n}";
    assert_eq!(named(source), ["access", "routes", "run"]);
    assert!(objection("run", "routes").is_some());
    assert!(objection("access", "run").is_some());
    assert!(objection("routes", "programs").is_some());
    assert!(objection("run", "settings").is_some());
    assert!(objection("routes", "run").is_none());
    assert!(objection("error", "metrics").is_none());
}
