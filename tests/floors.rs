//! The floors of the source: each file says what it is, and imports only from floors below its own.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The drawing: files by floor, the lowest first. `lib.rs`, `prelude.rs` and each `mod.rs` are the roof.
const FLOORS: &[&[&str]] = &[
    &[
        "contained",
        "deadline",
        "error",
        "executor",
        "http/headers",
        "http/host",
        "http/method",
        "http/path",
        "http/status",
        "os",
        "rule",
        "shown",
        "signals",
        "websocket/close",
        "websocket/header",
        "websocket/message",
    ],
    &[
        "controller/error",
        "http/cookie",
        "http/parser",
        "http/peer",
        "socket",
        "websocket/decoder",
        "websocket/frame",
    ],
    &[
        "http/origin",
        "http/response",
        "watchdog",
        "session",
        "websocket/batch",
        "websocket/settings",
    ],
    &["settings", "websocket/handshake", "websocket/outbox"],
    &["link", "topics", "websocket/connection"],
    &["registry"],
    &["comms"],
    &["http/request"],
    &["controller/http"],
    &["controller/websocket", "router"],
    &["http/serve", "server/pool"],
    &["server/acceptor"],
    &["server/handle"],
    &["server/builder"],
];

fn floor(file: &str) -> Option<usize> {
    FLOORS.iter().position(|files| files.contains(&file))
}

fn is_roof(file: &str) -> bool {
    matches!(file, "lib" | "prelude") || file.ends_with("/mod")
}

/// What is wrong with `text` as the source of `file`.
fn faults(file: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if !text.starts_with("//! ") {
        faults.push(format!("{file}.rs does not say in its first line what it is"));
    }
    if is_roof(file) {
        return faults;
    }
    let Some(own) = floor(file) else {
        faults.push(format!("{file}.rs is on no floor"));
        return faults;
    };
    let code = code(text);
    for path in code.split("crate::").skip(1).map(leading_path) {
        let names = (1..=path.len()).rev().map(|length| path[..length].join("/"));
        match names.filter_map(|name| Some((floor(&name)?, name))).next() {
            Some((_, name)) if name == file => {}
            Some((theirs, _)) if theirs < own => {}
            Some((theirs, name)) => faults.push(format!(
                "{file}.rs, on floor {own}, imports from {name}.rs, on floor {theirs}"
            )),
            None => faults.push(format!(
                "{file}.rs names `crate::{}`, not the file that defines it",
                path.join("::")
            )),
        }
    }
    if code.contains("super::") {
        faults.push(format!("{file}.rs imports by `super::`; write `crate::` and the file"));
    }
    faults
}

/// The text without whole-line comments and without the test module at its end.
fn code(text: &str) -> String {
    let text = text.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default();
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// `a`, `b` and `C` of `a::b::C;` or of `a::b::C::{d, e}`.
fn leading_path(text: &str) -> Vec<&str> {
    let end = text.find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | ':')));
    text[..end.unwrap_or(text.len())].split("::").filter(|name| !name.is_empty()).collect()
}

/// The files of the crate, without `.rs`, and their texts.
fn sources() -> Vec<(String, String)> {
    fn collect(folder: &Path, root: &Path, found: &mut Vec<(String, String)>) {
        let mut entries: Vec<PathBuf> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        for path in entries {
            if path.is_dir() {
                collect(&path, root, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root).unwrap().with_extension("");
                let name = name.to_str().unwrap().replace('\\', "/");
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    collect(&root, &root, &mut found);
    found
}

#[test]
fn imports_go_down_and_every_file_says_what_it_is() {
    let faults: Vec<_> = sources().iter().flat_map(|(file, text)| faults(file, text)).collect();
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn the_drawing_shows_each_file_once_and_no_others() {
    let drawn: Vec<_> = FLOORS.concat();
    let once: BTreeSet<_> = drawn.iter().copied().collect();
    assert_eq!(drawn.len(), once.len(), "a file is on two floors");
    let sources = sources();
    let files = sources.iter().map(|(file, _)| file.as_str()).filter(|file| !is_roof(file));
    assert_eq!(once, files.collect(), "left: the drawing, right: the files");
}

#[test]
fn a_wrong_import_is_found() {
    let cases: &[(&str, &str, &str)] = &[
        ("os", "//! A.\nuse crate::socket::Socket;\n", "imports from socket.rs"),
        ("os", "//! A.\nuse crate::error::Error;\n", "imports from error.rs"),
        ("socket", "//! A.\nfn f() { crate::link::Link::new() }\n", "imports from link.rs"),
        ("socket", "//! A.\nuse crate::http::Request;\n", "names `crate::http::Request`"),
        ("socket", "//! A.\nuse crate::{error, os};\n", "names `crate::`"),
        ("socket", "//! A.\nuse super::os;\n", "by `super::`"),
        ("socket", "use crate::os;\n", "does not say"),
        ("new", "//! A.\n", "on no floor"),
    ];
    for (file, text, expected) in cases {
        let found = faults(file, text);
        assert!(found.len() == 1 && found[0].contains(expected), "{text:?}: {found:?}");
    }
    let right = "//! A.\nuse crate::os::{self, send};\n// crate::link\nfn f() { crate::socket::g() }\n\
        #[cfg(test)]\nmod tests {\n    use super::*;\n    use crate::link::Link;\n}\n";
    assert_eq!(faults("socket", right), [""; 0], "what is right is let through");
}
