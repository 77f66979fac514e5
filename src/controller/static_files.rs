//! Files as the answers of a route: those of a folder, or those that were compiled in.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;

use async_trait::async_trait;
use bytes::Bytes;
use uuid::Uuid;

use crate::controller::error::Error;
use crate::controller::folder::{Folder, Found, INDEX, is_plain, names_folder};
use crate::controller::http::Controller;
use crate::controller::request::Request;
use crate::http::headers::is_field_value;
use crate::http::media_type;
use crate::http::method::Method;
use crate::http::path;
use crate::http::representation::{Content, Representation};
use crate::http::response::Response;
use crate::http::validators::Validators;

/// Serves files: a folder's, or those that were compiled in. Its route ends with a parameter that takes the rest.
///
/// ```
/// use rwf::controller::StaticFiles;
/// use rwf::prelude::*;
///
/// const PAGE: &[(&str, &[u8])] = &[
///     ("index.html", b"<script src=app.js></script>"), // include_bytes!("page/index.html")
///     ("app.js", b"new WebSocket('/chat')"),
/// ];
///
/// let routes = vec![
///     route!("/assets/*path" => StaticFiles::new("public")),
///     route!("/*path" => StaticFiles::embedded(PAGE)),
/// ];
/// # let _ = routes;
/// ```
///
/// A folder is answered with its `index.html`, and sent to its address with a slash first; one without is a 404. `GET` and
/// `HEAD` are answered, anything else is a 405. A client that has a file is told so by `ETag` and `Last-Modified` (304), and
/// one that has a part of it gets the rest: a single `Range` is a 206, several are answered with the whole (RFC 9110 §14.2).
/// Files are read in pieces while they are sent, and may be of any length.
///
/// Nothing outside of the folder is served, whatever a path or a link says. Nor are hidden files, whose name or folder
/// begins with a dot, unless [asked for](Self::hidden_files). Whoever may write in the folder while it is served is trusted:
/// a link may be put in place of a file between the look at it and its opening.
///
/// The content type comes from the file's extension, and browsers are told not to guess (`nosniff`).
#[doc(alias = "serve_dir")]
pub struct StaticFiles {
    source: Source,
    cache_control: String,
}

enum Source {
    Folder(Folder),
    Embedded(HashMap<&'static str, Embedded>),
}

struct Embedded {
    bytes: Bytes,
    validators: Validators,
}

impl StaticFiles {
    /// The files of a folder, relative to where the program was started. That it is there is checked when the server
    /// starts; what is in it may change meanwhile, and it may itself be a link that is changed to another version.
    #[must_use]
    pub fn new(folder: impl AsRef<Path>) -> Self {
        Self::of(Source::Folder(Folder::new(folder.as_ref())))
    }

    /// Files that the program has in itself, each with its path below the route: `include_bytes!` brings them. They are
    /// served from where they lie.
    #[must_use]
    pub fn embedded(files: &[(&'static str, &'static [u8])]) -> Self {
        let with_validators = |(path, bytes): &(&'static str, &'static [u8])| {
            // A hash of the content, by which the same file is known again after a restart.
            let etag = format!("\"{}\"", Uuid::new_v5(&Uuid::NAMESPACE_OID, bytes).simple());
            let validators = Validators::new(etag, None);
            (*path, Embedded { bytes: Bytes::from_static(bytes), validators })
        };
        Self::of(Source::Embedded(files.iter().map(with_validators).collect()))
    }

    fn of(source: Source) -> Self {
        Self { source, cache_control: "no-cache".to_owned() }
    }

    /// The `Cache-Control` header of the files (RFC 9111 §5.2.2). Default `no-cache`: browsers keep them, and ask each time
    /// whether they have changed, which is answered with an empty 304. For files whose names change with their content,
    /// `public, max-age=31536000, immutable` has them asked for once.
    #[must_use]
    pub fn cache_control(mut self, value: impl Into<String>) -> Self {
        self.cache_control = value.into();
        self
    }

    /// Whether a folder's files are served whose name, or a folder's on the way to them, begins with a dot. Default no:
    /// `.git` and `.env` are among them, and so is `.well-known`. It says nothing about files that are compiled in.
    #[must_use]
    pub fn hidden_files(mut self, hidden_files: bool) -> Self {
        if let Source::Folder(folder) = &mut self.source {
            folder.hidden_files = hidden_files;
        }
        self
    }

    fn find(&self, path: &str) -> Result<Found, Error> {
        match &self.source {
            Source::Folder(folder) => folder.find(path),
            Source::Embedded(files) => Ok(find_embedded(files, path)),
        }
    }
}

fn find_embedded(files: &HashMap<&'static str, Embedded>, path: &str) -> Found {
    let is_folder = names_folder(path);
    let file = if is_folder { files.get(&*format!("{path}{INDEX}")) } else { files.get(path) };
    match file {
        Some(Embedded { bytes, validators }) => Found::File(Representation {
            content: Content::Bytes(bytes.clone()),
            length: bytes.len() as u64,
            validators: validators.clone(),
        }),
        None if !is_folder && files.contains_key(&*format!("{path}/{INDEX}")) => {
            Found::FolderWithIndex
        }
        None => Found::Nothing(None),
    }
}

#[diagnostic::do_not_recommend]
#[async_trait]
impl Controller for StaticFiles {
    async fn handle(&self, request: &Request) -> Result<Response, Error> {
        if !matches!(request.method(), Method::Get | Method::Head) {
            return Ok(Response::method_not_allowed().header("Allow", "GET, HEAD"));
        }
        let Some(path) = request.last_param() else {
            return Err(Error::new(wrong_route()));
        };
        // A slash that was sent as an escape is part of a name, and no file has such a name.
        let mut segments = path::segments(request.path()).into_iter().flatten();
        if segments.any(|segment| segment.contains('/')) {
            return Ok(Response::not_found());
        }
        Ok(match self.find(path)? {
            Found::File(file) => {
                let name = if names_folder(path) { INDEX } else { path };
                let cache_control = self.cache_control.as_str();
                let base = Response::new().header("Cache-Control", cache_control).no_sniffing();
                file.answer(request.parsed(), media_type::of_name(name), base)
            }
            Found::FolderWithIndex => {
                let name = request.path().rsplit('/').next().unwrap_or_default();
                let query = match request.parsed().query.as_str() {
                    "" => String::new(),
                    query => format!("?{query}"),
                };
                // Relative, so that it holds behind a proxy which has taken the beginning of the path away.
                Response::new().redirect(format!("./{name}/{query}"))
            }
            Found::Nothing(None) => Response::not_found(),
            Found::Nothing(Some(note)) => Response::not_found().note(note),
        })
    }

    fn check(&self, path: &str) -> Result<(), String> {
        if !path.rsplit('/').next().is_some_and(|last| last.starts_with('*')) {
            return Err(wrong_route().to_owned());
        }
        if !is_field_value(&self.cache_control) {
            return Err(format!(
                "has files with {:?} as their Cache-Control, which no header can have",
                self.cache_control
            ));
        }
        match &self.source {
            Source::Folder(folder) => folder.check(),
            Source::Embedded(files) => {
                let is_path = |path: &str| path.split('/').all(|name| is_plain(name, false));
                match files.keys().find(|path| !is_path(path)) {
                    Some(wrong) => Err(format!(
                        "has an embedded file {wrong:?}, which no request can name: write \"a.css\" or \"a/b.css\""
                    )),
                    None => Ok(()),
                }
            }
        }
    }
}

fn wrong_route() -> &'static str {
    "serves files, and so has to end with a parameter that takes the rest: write `/assets/*path`"
}

impl fmt::Debug for StaticFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("StaticFiles");
        match &self.source {
            Source::Folder(folder) => shown.field("folder", folder),
            Source::Embedded(files) => shown.field("embedded", &files.len()),
        };
        shown.field("cache_control", &self.cache_control).finish()
    }
}
