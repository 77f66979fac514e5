//! The floors of the source: each folder is one, and each file imports only from those before it in the drawing of
//! `lib.rs`, and says what it is.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The files of the drawing in `lib.rs`, the lowest first: a line names a folder and its files, which go on in the next
/// line after a comma, and then one says in words what they are. `lib.rs`, `prelude.rs` and each `mod.rs` are the roof.
fn house() -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs");
    let text = fs::read_to_string(path).unwrap();
    let (_, drawing) = text.split_once("//! ```text\n").expect("lib.rs has the drawing");
    let (drawing, _) = drawing.split_once("//! ```").expect("the drawing ends");
    let drawing = drawing.replace(",\n//!", ",");
    let lines = drawing.lines().filter_map(|line| line.strip_prefix("//! "));
    let folders = lines.filter_map(|line| line.split_once("/ ")).collect::<Vec<_>>();
    let files = |(folder, files): &(&str, &str)| {
        files.split(',').map(|file| format!("{folder}/{}", file.trim())).collect::<Vec<_>>()
    };
    folders.iter().rev().flat_map(files).collect()
}

fn place(file: &str) -> Option<usize> {
    house().iter().position(|other| other == file)
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
    let Some(own) = place(file) else {
        faults.push(format!("{file}.rs is not in the drawing"));
        return faults;
    };
    let code = code(text);
    for path in code.split("crate::").skip(1).map(leading_path) {
        let names = (1..=path.len()).rev().map(|length| path[..length].join("/"));
        match names.filter_map(|name| Some((place(&name)?, name))).next() {
            Some((_, name)) if name == file => {}
            Some((theirs, _)) if theirs < own => {}
            Some((theirs, name)) => faults.push(format!(
                "{file}.rs, at place {own}, imports from {name}.rs, at place {theirs}"
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
    let drawn = house();
    let once: BTreeSet<_> = drawn.iter().map(String::as_str).collect();
    assert_eq!(drawn.len(), once.len(), "a file is drawn twice");
    let sources = sources();
    let files = sources.iter().map(|(file, _)| file.as_str()).filter(|file| !is_roof(file));
    assert_eq!(once, files.collect(), "left: the drawing, right: the files");
}

#[test]
fn a_wrong_import_is_found() {
    let cases: &[(&str, &str, &str)] = &[
        ("net/os", "//! A.\nuse crate::net::stream::Stream;\n", "imports from net/stream.rs"),
        ("net/os", "//! A.\nuse crate::http::path;\n", "imports from http/path.rs"),
        ("net/os", "//! A.\nfn f() { crate::server::pool::f() }\n", "imports from server/pool.rs"),
        ("net/os", "//! A.\nuse crate::http::Request;\n", "names `crate::http::Request`"),
        ("net/os", "//! A.\nuse crate::base::{rule, shown};\n", "names `crate::base`"),
        ("net/os", "//! A.\nuse super::stream;\n", "by `super::`"),
        ("net/os", "use crate::base::rule;\n", "does not say"),
        ("net/new", "//! A.\n", "is not in the drawing"),
    ];
    for (file, text, expected) in cases {
        let found = faults(file, text);
        assert!(found.len() == 1 && found[0].contains(expected), "{text:?}: {found:?}");
    }
    let right = "//! A.\nuse crate::net::os::{self, send};\n// crate::server::pool\nfn f() { crate::net::stream::g() }\n\
        #[cfg(test)]\nmod tests {\n    use super::*;\n    use crate::server::pool::Pool;\n}\n";
    assert_eq!(faults("net/watchdog", right), [""; 0], "what is right is let through");
}
