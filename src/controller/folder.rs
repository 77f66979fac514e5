//! Finds the file that a request's path names in a folder, and nothing that is outside of it.

use std::fs::{self, File};
use std::io;
use std::path::{self, Component, Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::controller::error::Error;
use crate::http::representation::{Content, Representation};
use crate::http::validators::Validators;
use crate::net::os;

/// What a folder answers with in place of itself.
pub(crate) const INDEX: &str = "index.html";

/// A file that changed so little ago may change once more without its times telling: they are those of a clock's ticks.
const TICK: Duration = Duration::from_secs(1);

/// A folder whose files are served.
#[derive(Debug)]
pub(crate) struct Folder {
    root: PathBuf,
    /// Whether names that begin with a dot are served.
    pub(crate) hidden_files: bool,
}

/// What a path names.
#[derive(Debug)]
pub(crate) enum Found {
    File(Representation),
    /// A folder with an index, without the slash that its own links need.
    FolderWithIndex,
    /// Nothing, or nothing that is served; with a note for the log if that is worth one.
    Nothing(Option<&'static str>),
}

impl Folder {
    pub(crate) fn new(root: &Path) -> Self {
        // What the program's working folder is later is not asked.
        let root = path::absolute(root).unwrap_or_else(|_| root.to_owned());
        Self { root, hidden_files: false }
    }

    /// Whether it is there.
    pub(crate) fn check(&self) -> Result<(), String> {
        let fault = match fs::metadata(&self.root) {
            Ok(metadata) if metadata.is_dir() => return Ok(()),
            Ok(_) => "it is no folder".to_owned(),
            Err(error) => error.to_string(),
        };
        Err(format!("serves the folder {:?}, which cannot be read: {fault}", self.root))
    }

    /// Finds what `path` names: decoded, relative, with slashes.
    ///
    /// # Errors
    ///
    /// The folder itself is gone, or a file that is there cannot be opened for another reason than its permissions.
    pub(crate) fn find(&self, path: &str) -> Result<Found, Error> {
        let is_folder = names_folder(path);
        let mut relative = PathBuf::new();
        if !path.is_empty() {
            for name in path.strip_suffix('/').unwrap_or(path).split('/') {
                if !self.serves(name) {
                    return Ok(Found::Nothing(None));
                }
                relative.push(name);
            }
        }
        if is_folder {
            relative.push(INDEX);
        }
        // Each time anew, because a new version of the folder may be put in place by a link.
        let root = self.root.canonicalize().map_err(|error| {
            Error::new(format!("the folder {:?} cannot be read: {error}", self.root))
        })?;
        match self.open(&root, &relative)? {
            Found::Nothing(None) if !is_folder => {}
            found => return Ok(found),
        }
        match self.open(&root, &relative.join(INDEX))? {
            Found::File(_) => Ok(Found::FolderWithIndex),
            found => Ok(found),
        }
    }

    fn open(&self, root: &Path, relative: &Path) -> Result<Found, Error> {
        // Without links: where the file really is.
        let Ok(path) = root.join(relative).canonicalize() else {
            return Ok(Found::Nothing(None));
        };
        let Ok(inside) = path.strip_prefix(root) else {
            return Ok(Found::Nothing(Some("it is a link that leads out of the folder")));
        };
        let serves = |component| match component {
            Component::Normal(name) => name.to_str().is_some_and(|name| self.serves(name)),
            _ => false,
        };
        // A link may lead to a hidden file, and systems that know a file by several names have told its own now.
        if !inside.components().all(serves) {
            return Ok(Found::Nothing(Some("it is a link to a file that is not served")));
        }
        // Not opened to find out: that would wait for the other end of a pipe.
        if !fs::metadata(&path).is_ok_and(|metadata| metadata.is_file()) {
            return Ok(Found::Nothing(None));
        }
        let opened = File::open(&path).and_then(|file| Ok((file.metadata()?, file)));
        match opened {
            Ok((metadata, file)) if metadata.is_file() => {
                let validators = validators(&metadata);
                let (content, length) = (Content::File(file), metadata.len());
                Ok(Found::File(Representation { content, length, validators }))
            }
            Ok(_) => Ok(Found::Nothing(None)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Found::Nothing(None)),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                Ok(Found::Nothing(Some("the file may not be read")))
            }
            Err(error) => Err(Error::new(format!("cannot open {path:?}: {error}"))),
        }
    }

    fn serves(&self, name: &str) -> bool {
        is_plain(name, cfg!(windows)) && (self.hidden_files || !name.starts_with('.'))
    }
}

/// Whether a path means a folder, by its slash.
pub(crate) fn names_folder(path: &str) -> bool {
    path.is_empty() || path.ends_with('/')
}

/// Whether a decoded name is that of one file or folder, whatever the system makes of names: not of the folder above, a
/// drive, a stream or a device.
pub(crate) fn is_plain(name: &str, on_windows: bool) -> bool {
    let is_odd = |c: char| matches!(c, '/' | '\\') || c.is_control();
    let is_plain = !matches!(name, "" | "." | "..") && !name.contains(is_odd);
    is_plain && !(on_windows && is_odd_on_windows(name))
}

/// Windows takes `a:b` for a drive or a stream, drops dots and spaces at the end, and has devices in every folder,
/// whatever stands behind a dot.
fn is_odd_on_windows(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default().trim_end_matches(' ').to_uppercase();
    let is_numbered = |device: &str| {
        stem.strip_prefix(device).is_some_and(|number| {
            let mut characters = number.chars();
            matches!(characters.next(), Some('0'..='9' | '¹' | '²' | '³'))
                && characters.next().is_none()
        })
    };
    name.contains([':', '<', '>', '"', '|', '?', '*'])
        || name.ends_with(['.', ' '])
        || matches!(stem.as_str(), "CON" | "PRN" | "AUX" | "NUL" | "CONIN$" | "CONOUT$")
        || is_numbered("COM")
        || is_numbered("LPT")
}

fn validators(metadata: &fs::Metadata) -> Validators {
    let modified = metadata.modified().ok();
    let changed = os::last_change(metadata);
    let since_1970 = |time: Option<SystemTime>| {
        let since = time.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
        since.unwrap_or_default().as_nanos()
    };
    let is_settled = changed.is_some_and(|changed| changed.elapsed().is_ok_and(|age| age > TICK));
    let weak = if is_settled { "" } else { "W/" };
    // Builds may give all files one date, which a system's own note of the last change is not.
    let (date, change) = (since_1970(modified), since_1970(changed));
    let etag = format!("{weak}\"{:x}-{date:x}-{change:x}\"", metadata.len());
    Validators::new(etag, modified)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Read;

    #[test]
    fn names_of_one_file_are_plain_and_no_others() {
        for name in ["a", "a.b", "...", "a b", "ä", ".hidden", "%2e", "~", "a..b", "-"] {
            assert!(is_plain(name, false), "{name:?}");
        }
        for name in ["", ".", "..", "a/b", "/", "..\\a", "\\", "a\0", "\n", "\u{7f}", "\u{85}"] {
            assert!(!is_plain(name, false) && !is_plain(name, true), "{name:?}");
        }
    }

    #[test]
    fn what_windows_takes_for_something_else_is_refused_there() {
        for name in [
            "C:",
            "c:a",
            "a.txt:stream",
            "a::$DATA",
            "con",
            "Con.txt",
            "NUL",
            "nul .txt",
            "aux.a.b",
            "COM1",
            "com0.txt",
            "lpt9",
            "COM²",
            "CONIN$",
            "a.",
            "a ",
            "...",
            "a?b",
            "*",
        ] {
            assert!(!is_plain(name, true), "{name:?}");
        }
        for name in ["cone", "com", "com10", "communication", "nulls.txt", "a con", "lpt", "b.con"]
        {
            assert!(is_plain(name, true), "{name:?}");
        }
    }

    #[test]
    #[cfg(unix)]
    fn no_path_leads_out_of_the_folder_or_to_what_is_hidden() {
        use std::os::unix::fs::symlink;
        let outside = std::env::temp_dir().join(format!("rwf-folder-{}", std::process::id()));
        let root = outside.join("root");
        fs::create_dir_all(root.join("a/.b")).unwrap();
        for (path, content) in [
            (outside.join("a"), "secret"),
            (outside.join("index.html"), "secret"),
            (root.join(".b"), "secret"),
            (root.join("a/.b/a"), "secret"),
            (root.join("a/a"), "shown"),
            (root.join("index.html"), "shown"),
        ] {
            fs::write(path, content).unwrap();
        }
        for (target, link) in
            [("..", "up"), ("../a", "a/out"), (".b", "dot"), ("..", "a/back"), ("a/.b", "hid")]
        {
            symlink(target, root.join(link)).unwrap();
        }
        let folder = Folder::new(&root);
        let names =
            ["..", ".", "", "a", ".b", "up", "out", "dot", "back", "hid", "root", "/", "\\", "/.."];
        let config = ProptestConfig { cases: 2000, ..ProptestConfig::default() };
        let paths = proptest::collection::vec(proptest::sample::select(names.to_vec()), 0..6);
        proptest!(config, |(path in paths)| {
            if let Found::File(Representation { content: Content::File(mut file), .. }) =
                folder.find(&path.join("/")).unwrap()
            {
                let mut content = String::new();
                file.read_to_string(&mut content).unwrap();
                prop_assert_eq!(content, "shown", "{:?}", path);
            }
        });
        fs::remove_dir_all(outside).unwrap();
    }
}
