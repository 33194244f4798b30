//! `docs/architecture.md` is correct, and modules depend only on the modules that it allows.

use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const PAGE: &str = include_str!("../../docs/architecture.md");

/// Each module, and the modules it may use.
const BELOW: [(&str, &[&str]); 17] = [
    (
        "serve",
        &[
            "api",
            "connections",
            "error",
            "grpc",
            "log_limit",
            "metrics",
            "model",
            "web",
        ],
    ),
    (
        "metrics.rs",
        &["api", "connections", "log_lines", "model", "store"],
    ),
    (
        "metrics",
        &[
            "api",
            "connections",
            "counters",
            "error",
            "model",
            "service",
            "store",
        ],
    ),
    (
        "grpc",
        &["api", "connections", "error", "log_limit", "model"],
    ),
    (
        "connections",
        &[
            "api",
            "counters",
            "error",
            "log_limit",
            "model",
            "ownership",
        ],
    ),
    (
        "api",
        &["counters", "error", "log_limit", "model", "service", "web"],
    ),
    (
        "service",
        &["error", "model", "ownership", "seal", "store", "totp"],
    ),
    ("store", &["counters", "error", "model", "seal", "totp"]),
    ("web.rs", &[]),
    ("log_lines.rs", &["counters"]),
    ("counters.rs", &[]),
    ("seal.rs", &["error", "model", "ownership", "totp"]),
    ("seal", &["error", "model", "totp"]),
    ("totp.rs", &["error", "model"]),
    ("ownership.rs", &[]),
    ("model", &["error"]),
    ("error.rs", &[]),
];

/// All source files below `path`, each with its text without comments and unit tests.
fn sources(path: &Path, found: &mut Vec<(PathBuf, String)>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            sources(&entry.unwrap().path(), found);
        }
        return;
    }
    let is_test = path.file_name().is_some_and(|it| it == "tests.rs");
    if is_test || path.extension().is_none_or(|it| it != "rs") {
        return;
    }
    let text = fs::read_to_string(path).unwrap();
    let code = text.split("\nmod tests {").next().unwrap();
    let lines = code
        .lines()
        .filter(|it| !it.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n");
    found.push((path.to_owned(), lines));
}

fn sources_of(module: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    sources(&Path::new(ROOT).join("src").join(module), &mut found);
    assert!(!found.is_empty(), "{module} has no source");
    found
}

#[test]
fn modules_use_only_those_below_them() {
    for (module, below) in BELOW {
        let own = module.trim_end_matches(".rs");
        for (path, code) in sources_of(module) {
            for used in code.split("crate::").skip(1) {
                let used = used.split(|it: char| !(it.is_ascii_lowercase() || it == '_'));
                let used = used.into_iter().next().unwrap();
                let is_allowed = used == own || below.contains(&used);
                assert!(is_allowed, "{} uses {used:?}", path.display());
            }
        }
    }
}

#[test]
fn sql_and_the_outside_stay_where_they_belong() {
    let statements = [
        "SELECT ",
        "INSERT ",
        "UPDATE ",
        "DELETE FROM ",
        "PRAGMA ",
        "rusqlite",
    ];
    let outside = ["SystemTime::now", "env::var", "env::args"];
    for (path, code) in sources_of("") {
        let is_in = |module: &str| path.starts_with(Path::new(ROOT).join("src").join(module));
        for (module, marks) in [("store", &statements[..]), ("cli", &outside[..])] {
            let found = marks.iter().find(|it| code.contains(**it));
            assert!(
                is_in(module) || found.is_none(),
                "{found:?} belongs to {module} and stands in {}",
                path.display()
            );
        }
    }
}

/// The code spans of the page.
fn spans() -> impl Iterator<Item = &'static str> {
    PAGE.split('`').skip(1).step_by(2)
}

fn is_name(text: &str) -> bool {
    let is_part = |it: char| it.is_ascii_lowercase() || it.is_ascii_digit() || it == '_';
    !text.is_empty() && text.chars().all(is_part)
}

#[test]
fn every_function_and_test_that_the_page_names_exists() {
    let exists = |file: PathBuf, function: &str| {
        let text = fs::read_to_string(&file).unwrap_or_default();
        ["(", "<"]
            .iter()
            .any(|it| text.contains(&format!("fn {function}{it}")))
    };
    let mut named = 0;
    for span in spans() {
        let (file, function) = if let Some((file, function)) = span.split_once(".rs:") {
            (format!("src/{file}.rs"), function)
        } else if let Some((file, test)) = span.split_once("::")
            && is_name(file)
            && is_name(test)
        {
            (format!("tests/all/{file}.rs"), test)
        } else {
            continue;
        };
        named += 1;
        assert!(
            exists(Path::new(ROOT).join(&file), function),
            "the page names {span}, and {file} has no function {function}"
        );
    }
    assert!(named > 60, "{named} were found");
}
