//! Reads every `crate::` path in `src/` and fails on an import that points the wrong way.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Each room and the rooms it may import. Order is law: only rooms above.
const ROOMS: &[(&str, &[&str])] = &[
    ("wire", &[]),
    ("shard", &[]),
    ("catalog", &[]),
    ("rows", &[]),
    ("stats", &["shard"]),
    ("config", &["shard"]),
    ("route", &["wire", "shard", "catalog", "rows"]),
    ("pool", &["wire", "stats", "config"]),
    ("cluster", &["wire", "shard", "catalog", "stats", "config", "pool"]),
    ("exec", &["wire", "shard", "catalog", "rows", "stats", "config", "route", "pool", "cluster"]),
    ("admin", &["wire", "shard", "catalog", "rows", "stats", "config", "pool", "cluster", "exec"]),
    (
        "session",
        &["wire", "shard", "catalog", "rows", "stats", "config", "route", "pool", "cluster", "exec", "admin"],
    ),
    (
        "http",
        &[
            "wire", "shard", "catalog", "rows", "stats", "config", "route", "pool", "cluster", "exec",
            "admin", "session",
        ],
    ),
    ("local", &[]),
    (
        "cli",
        &[
            "wire", "shard", "catalog", "rows", "stats", "config", "route", "pool", "cluster", "exec",
            "admin", "session", "http", "local",
        ],
    ),
];

fn rust_files(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

/// The rooms named by `crate::room` and `crate::{room, room::x}` in a text.
fn rooms_named(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for after in text.split("crate::").skip(1) {
        if let Some(group) = after.strip_prefix('{') {
            let mut depth = 1;
            let mut word = String::new();
            let mut at_start = true;
            for c in group.chars() {
                match c {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    _ => {}
                }
                if c.is_alphanumeric() || c == '_' {
                    if at_start {
                        word.push(c);
                    }
                } else {
                    if at_start && !word.is_empty() {
                        found.insert(std::mem::take(&mut word));
                    }
                    word.clear();
                    at_start = (c == ',' || c.is_whitespace()) && depth == 1 && (c == ',' || at_start);
                }
                if depth == 0 {
                    break;
                }
            }
        } else {
            found.insert(after.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
        }
    }
    found
}

#[test]
fn grouped_imports_are_seen() {
    let rooms = rooms_named("use crate::{wire::{A, B}, shard};\nuse crate::pool::X;");
    assert_eq!(rooms.into_iter().collect::<Vec<_>>(), ["pool", "shard", "wire"]);
}

#[test]
fn a_room_imports_only_rooms_above_it() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let allowed: BTreeMap<&str, &[&str]> = ROOMS.iter().copied().collect();
    let mut files = Vec::new();
    rust_files(&src, &mut files);
    assert!(files.len() > 10, "no sources found");
    let mut wrong = Vec::new();
    for file in files {
        let rel = file.strip_prefix(&src).unwrap();
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("//!"), "{} does not say what it is for", rel.display());
        let mut parts = rel.components();
        let room = parts.next().unwrap().as_os_str().to_str().unwrap().to_owned();
        if parts.next().is_none() {
            continue; // lib.rs and main.rs may name everything
        }
        let may = allowed.get(room.as_str()).unwrap_or_else(|| panic!("room {room} is not in the list"));
        for named in rooms_named(&text) {
            if named != room && !may.contains(&named.as_str()) {
                wrong.push(format!("{} imports {named}", rel.display()));
            }
        }
        let depth = rel.components().count();
        if text.contains(&"super::".repeat(depth)) {
            wrong.push(format!("{} leaves its room by super::", rel.display()));
        }
        if room != "route" && text.contains("sqlparser::") {
            wrong.push(format!("{} names sqlparser", rel.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
