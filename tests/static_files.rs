//! Files as answers: of a folder and compiled in; conditions and parts; and that nothing else is served, whatever is asked.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::fs::File;
use std::time::{Duration, SystemTime};

use common::{Folder, Raw, get, header, serve, status, wait_until};
use rwf::controller::StaticFiles;
use rwf::http::{Server, ServerHandle};
use rwf::prelude::*;

/// What no client may see.
const SECRET: &str = "the secret";
const TEXT: &str = "0123456789";

const EMBEDDED: &[(&str, &[u8])] = &[
    ("index.html", b"<p>start"),
    ("a.txt", TEXT.as_bytes()),
    ("sub/index.html", b"<p>sub"),
    ("sub/b.css", b"p{}"),
    ("empty.txt", b""),
];

/// A folder beside a secret, with the same files that are compiled in, and with hidden ones.
fn site() -> Folder {
    let folder = Folder::new();
    for (name, content) in EMBEDDED {
        folder.write(&format!("public/{name}"), content);
    }
    for hidden in [".env", ".git/config", "sub/.hidden", ".well-known/.env"] {
        folder.write(&format!("public/{hidden}"), SECRET);
    }
    std::fs::create_dir(folder.0.join("public/bare")).unwrap();
    folder.write("secret.txt", SECRET);
    folder
}

/// Serves a site's folder at `/folder/`, and what is compiled in at `/embedded/`.
fn serve_both(site: &Folder) -> ServerHandle {
    serve(vec![
        route!("/folder/*path" => StaticFiles::new(site.0.join("public"))),
        route!("/embedded/*path" => StaticFiles::embedded(EMBEDDED)),
    ])
}

const BOTH: [&str; 2] = ["/folder/", "/embedded/"];

fn ask(client: &mut Raw, method: &str, path: &str, headers: &str) -> (String, String) {
    client.send(format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n").as_bytes());
    if method == "HEAD" { (client.head(), String::new()) } else { client.response() }
}

#[test]
fn files_come_with_their_type_and_length() {
    let site = site();
    let server = serve_both(&site);
    let mut client = Raw::connect(server.local_addr());
    for place in BOTH {
        for (path, content_type, content) in [
            ("", "text/html; charset=utf-8", "<p>start"),
            ("index.html", "text/html; charset=utf-8", "<p>start"),
            ("a.txt", "text/plain; charset=utf-8", TEXT),
            ("%61.t%78t?query", "text/plain; charset=utf-8", TEXT),
            ("sub/", "text/html; charset=utf-8", "<p>sub"),
            ("sub/b.css", "text/css; charset=utf-8", "p{}"),
            ("empty.txt", "text/plain; charset=utf-8", ""),
        ] {
            let path = format!("{place}{path}");
            let (head, body) = client.ask(&get(&path));
            assert_eq!((status(&head), body.as_str()), (200, content), "{path}");
            let (of_head, _) = ask(&mut client, "HEAD", &path, "");
            for head in [head, of_head] {
                assert_eq!(status(&head), 200, "{path}");
                assert_eq!(header(&head, "content-type"), Some(content_type), "{path}");
                let length = content.len().to_string();
                assert_eq!(header(&head, "content-length"), Some(length.as_str()), "{path}");
                assert_eq!(header(&head, "x-content-type-options"), Some("nosniff"), "{path}");
                assert_eq!(header(&head, "cache-control"), Some("no-cache"), "{path}");
                assert_eq!(header(&head, "accept-ranges"), Some("bytes"), "{path}");
                assert_eq!(header(&head, "set-cookie"), None, "{path}: a file begins no session");
            }
        }
    }
}

#[test]
fn a_folder_is_sent_to_its_slash_where_it_has_an_index() {
    let site = site();
    let server = serve_both(&site);
    let mut client = Raw::connect(server.local_addr());
    for place in BOTH {
        for (path, location) in [("sub", "./sub/"), ("s%75b?a=b&c", "./s%75b/?a=b&c")] {
            let (head, _) = client.ask(&get(&format!("{place}{path}")));
            assert_eq!((status(&head), header(&head, "location")), (302, Some(location)), "{path}");
        }
        for path in ["bare", "bare/"] {
            let (head, _) = client.ask(&get(&format!("{place}{path}")));
            assert_eq!(status(&head), 404, "{path} has no index, and is not listed");
        }
    }
}

#[test]
fn other_methods_are_not_allowed() {
    let site = site();
    let server = serve_both(&site);
    let mut client = Raw::connect(server.local_addr());
    for place in BOTH {
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"] {
            let (head, _) =
                ask(&mut client, method, &format!("{place}a.txt"), "Content-Length: 0\r\n");
            assert_eq!(
                (status(&head), header(&head, "allow")),
                (405, Some("GET, HEAD")),
                "{method}"
            );
        }
    }
}

#[test]
fn nothing_is_served_but_the_files_themselves() {
    let site = site();
    #[cfg(unix)]
    {
        use std::os::unix::fs::symlink;
        let public = site.0.join("public");
        symlink("../secret.txt", public.join("out.txt")).unwrap();
        symlink(site.0.join("secret.txt"), public.join("absolute.txt")).unwrap();
        symlink("..", public.join("up")).unwrap();
        symlink("loop", public.join("loop")).unwrap();
        symlink(".env", public.join("to-hidden.txt")).unwrap();
        symlink("nowhere", public.join("dangling.txt")).unwrap();
        std::fs::create_dir(public.join("linked")).unwrap();
        symlink("../../secret.txt", public.join("linked/index.html")).unwrap();
    }
    let server = serve_both(&site);
    let long = "a".repeat(300);
    let deep = "a/".repeat(3000);
    let outside = format!("{}/secret.txt", site.0.display());
    let encoded_outside = outside.replace('/', "%2f");
    let paths = [
        "..",
        "../",
        "../secret.txt",
        "../../secret.txt",
        "../public/a.txt",
        "./a.txt",
        ".",
        "./",
        "sub/../a.txt",
        "sub/../../secret.txt",
        "sub/..",
        "sub/.",
        "sub//b.css",
        "/",
        "//",
        "/a.txt",
        "a.txt/",
        "a.txt/.",
        "a.txt/..",
        "a.txt/../../secret.txt",
        "%2e%2e/secret.txt",
        "%2E%2E/secret.txt",
        ".%2e/secret.txt",
        "%2e%2e%2fsecret.txt",
        "..%2fsecret.txt",
        "..%2Fsecret.txt",
        "sub/..%2f..%2fsecret.txt",
        "sub%2fb.css",
        "sub%2f",
        "%2e",
        "%2f",
        "%2fa.txt",
        "..\\secret.txt",
        "..%5csecret.txt",
        "sub\\b.css",
        "sub%5cb.css",
        "%5c",
        "\\",
        "\\\\host\\share",
        "%252e%252e/secret.txt",
        "..%252fsecret.txt",
        "..;/secret.txt",
        ".../secret.txt",
        "....//secret.txt",
        "..%c0%afsecret.txt",
        "%c0%ae%c0%ae/secret.txt",
        "%e0%80%ae%e0%80%ae/secret.txt",
        "%u002e%u002e/secret.txt",
        "%%32%65%%32%65/secret.txt",
        "..%ef%bc%8fsecret.txt",
        "%ef%bc%8e%ef%bc%8e/secret.txt",
        "a.txt%00",
        "a.txt%00.html",
        "%00",
        "../secret.txt%00.html",
        "a.txt%0a",
        "a.txt%20",
        "a.txt.",
        "A.TXT ",
        "%7f",
        "%c2%85",
        "a%09",
        "C:",
        "C:/",
        "C:%5csecret.txt",
        "c:secret.txt",
        "file:///etc/passwd",
        "a.txt:$DATA",
        "a.txt::$DATA",
        "NUL",
        "nul.txt",
        "CON",
        "aux",
        "COM1",
        "LPT1.txt",
        "CONIN$",
        "~",
        "~root",
        "/etc/passwd",
        "//etc/passwd",
        "%2fetc%2fpasswd",
        "proc/self/environ",
        "*",
        "%2a",
        "%",
        ".env",
        "%2eenv",
        ".git/config",
        ".git",
        ".git/",
        "sub/.hidden",
        ".well-known/.env",
        "out.txt",
        "absolute.txt",
        "up/secret.txt",
        "up/public/.env",
        "up",
        "up/",
        "loop",
        "loop/",
        "loop/a.txt",
        "to-hidden.txt",
        "dangling.txt",
        "dangling.txt/",
        "linked",
        "linked/",
        "index.html/",
        "index.html/a.txt",
        "sub/index.html/",
        "nothing.txt",
        "nothing/",
        "?",
        "#",
        &long,
        &deep,
        &outside,
        &encoded_outside,
    ];
    for place in BOTH {
        for path in paths {
            let mut client = Raw::connect(server.local_addr());
            let target = format!("{place}{path}");
            if path == "?" {
                // The folder's index, with an empty query.
                assert_eq!(status(&client.ask(&get(&target)).0), 200);
                continue;
            }
            for target in [target.clone(), format!("http://localhost{target}")] {
                let (head, body) = client.ask(&get(&target));
                let code = status(&head);
                assert!(matches!(code, 400 | 404), "{target} is answered {code}: {body}");
                assert!(!body.contains(SECRET) && !body.contains(TEXT), "{target}: {body}");
                if code == 400 {
                    client = Raw::connect(server.local_addr());
                }
            }
            if header(&client.ask(&get("/folder/a.txt")).0, "content-length") != Some("10") {
                panic!("after {target} a file is not served any more");
            }
        }
    }
}

#[test]
#[cfg(unix)]
fn links_that_stay_inside_are_followed_and_the_folder_itself_may_be_one() {
    use std::os::unix::fs::symlink;
    let site = site();
    let public = site.0.join("public");
    symlink("a.txt", public.join("relative.txt")).unwrap();
    symlink(public.join("sub"), public.join("absolute")).unwrap();
    symlink("public", site.0.join("current")).unwrap();
    site.write("next/a.txt", "the next version");
    let server = serve(vec![route!("/*path" => StaticFiles::new(site.0.join("current")))]);
    let mut client = Raw::connect(server.local_addr());
    for (path, content) in [("/relative.txt", TEXT), ("/absolute/b.css", "p{}"), ("/a.txt", TEXT)] {
        assert_eq!(client.ask(&get(path)).1, content, "{path}");
    }
    std::fs::remove_file(site.0.join("current")).unwrap();
    symlink("next", site.0.join("current")).unwrap();
    assert_eq!(client.ask(&get("/a.txt")).1, "the next version");
    std::fs::remove_file(site.0.join("current")).unwrap();
    assert_eq!(status(&client.ask(&get("/a.txt")).0), 500, "the folder is gone");
}

#[test]
#[cfg(target_os = "linux")]
fn what_is_no_file_is_not_waited_for() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    use std::os::unix::net::UnixListener;
    let site = site();
    let public = site.0.join("public");
    mknodat(CWD, public.join("pipe"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    let _listener = UnixListener::bind(public.join("socket")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", public.join("zero")).unwrap();
    let server = serve_both(&site);
    let mut client = Raw::connect(server.local_addr());
    for name in ["pipe", "socket", "zero"] {
        assert_eq!(status(&client.ask(&get(&format!("/folder/{name}"))).0), 404, "{name}");
    }
}

#[test]
fn hidden_files_are_served_where_that_is_wanted() {
    let site = site();
    site.write("public/.well-known/acme", "challenge");
    let files = StaticFiles::new(site.0.join("public")).hidden_files(true);
    let server = serve(vec![route!("/*path" => files)]);
    let mut client = Raw::connect(server.local_addr());
    assert_eq!(client.ask(&get("/.well-known/acme")).1, "challenge");
    for path in ["/../secret.txt", "/.", "/..", "/.well-known/../.env", "/./.env"] {
        assert_eq!(status(&client.ask(&get(path)).0), 404, "{path}");
    }
}

/// The tag of a file, once that is old enough for a strong one.
fn strong_etag(client: &mut Raw, path: &str) -> String {
    let mut etag = String::new();
    wait_until("the tag is a strong one", || {
        etag = header(&client.ask(&get(path)).0, "etag").unwrap().to_owned();
        !etag.starts_with("W/")
    });
    etag
}

#[test]
fn who_has_a_file_is_told_so() {
    let site = site();
    let server = serve_both(&site);
    let mut client = Raw::connect(server.local_addr());
    for place in BOTH {
        let path = format!("{place}a.txt");
        let (head, _) = client.ask(&get(&path));
        let etag = header(&head, "etag").unwrap().to_owned();
        for method in ["GET", "HEAD"] {
            for (condition, code) in [
                (format!("If-None-Match: {etag}\r\n"), 304),
                (format!("If-None-Match: \"x\", {etag}\r\n"), 304),
                ("If-None-Match: *\r\n".to_owned(), 304),
                ("If-None-Match: \"x\"\r\n".to_owned(), 200),
                ("If-Match: \"x\"\r\n".to_owned(), 412),
                (format!("If-None-Match: {etag}\r\nRange: bytes=0-1\r\n"), 304),
            ] {
                let (head, body) = ask(&mut client, method, &path, &condition);
                assert_eq!(status(&head), code, "{method} {path} {condition}");
                if code == 304 {
                    assert_eq!(header(&head, "etag"), Some(etag.as_str()));
                    assert_eq!(header(&head, "cache-control"), Some("no-cache"));
                    assert_eq!((header(&head, "content-length"), body.as_str()), (None, ""));
                }
            }
        }
    }
    // Dates are those of files.
    let path = site.0.join("public/a.txt");
    let day = SystemTime::UNIX_EPOCH + Duration::from_secs(1_704_153_600);
    File::options().write(true).open(path).unwrap().set_modified(day).unwrap();
    // Not told as long as another version could have the same.
    strong_etag(&mut client, "/folder/a.txt");
    let (head, _) = client.ask(&get("/folder/a.txt"));
    let date = "Tue, 02 Jan 2024 00:00:00 GMT";
    assert_eq!(header(&head, "last-modified"), Some(date));
    for (condition, code) in [
        ("If-Modified-Since: Tue, 02 Jan 2024 00:00:00 GMT\r\n", 304),
        ("If-Modified-Since: Mon, 01 Jan 2024 00:00:00 GMT\r\n", 200),
        ("If-Unmodified-Since: Mon, 01 Jan 2024 00:00:00 GMT\r\n", 412),
    ] {
        assert_eq!(
            status(&ask(&mut client, "GET", "/folder/a.txt", condition).0),
            code,
            "{condition}"
        );
    }
}

#[test]
fn a_file_that_changes_is_another_one_though_its_length_and_date_stay() {
    let site = site();
    let server = serve_both(&site);
    let mut client = Raw::connect(server.local_addr());
    let path = site.0.join("public/a.txt");
    let day = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
    let set_date = || File::options().write(true).open(&path).unwrap().set_modified(day).unwrap();
    set_date();
    let etag = strong_etag(&mut client, "/folder/a.txt");
    site.write("public/a.txt", "9876543210");
    set_date();
    let condition = format!("If-None-Match: {etag}\r\n");
    let (head, body) = ask(&mut client, "GET", "/folder/a.txt", &condition);
    assert_eq!(status(&head), 200);
    if cfg!(unix) {
        assert_eq!(body, "9876543210");
        let etag = header(&head, "etag").unwrap();
        assert!(etag.starts_with("W/"), "{etag} of a file that may change within the same tick");
    }
}

#[test]
fn a_part_is_sent_to_who_asks_for_one() {
    let site = site();
    let server = serve_both(&site);
    let mut client = Raw::connect(server.local_addr());
    for place in BOTH {
        let path = format!("{place}a.txt");
        let etag = strong_etag(&mut client, &path);
        for (headers, code, range, content) in [
            ("Range: bytes=2-4\r\n", 206, Some("bytes 2-4/10"), "234"),
            ("Range: bytes=7-\r\n", 206, Some("bytes 7-9/10"), "789"),
            ("Range: bytes=-2\r\n", 206, Some("bytes 8-9/10"), "89"),
            ("Range: bytes=0-99\r\n", 206, Some("bytes 0-9/10"), TEXT),
            ("Range: bytes=0-1,4-5\r\n", 200, None, TEXT),
            ("Range: bytes=4-2\r\n", 200, None, TEXT),
            ("Range: bytes=0-1\r\nRange: bytes=0-1\r\n", 200, None, TEXT),
            ("Range: bytes=10-\r\n", 416, Some("bytes */10"), "Range Not Satisfiable"),
            (
                &format!("Range: bytes=2-4\r\nIf-Range: {etag}\r\n"),
                206,
                Some("bytes 2-4/10"),
                "234",
            ),
            ("Range: bytes=2-4\r\nIf-Range: \"x\"\r\n", 200, None, TEXT),
            ("Range: bytes=10-\r\nIf-Range: \"x\"\r\n", 200, None, TEXT),
        ] {
            let (head, body) = ask(&mut client, "GET", &path, headers);
            let got = (status(&head), header(&head, "content-range"), body.as_str());
            assert_eq!(got, (code, range, content), "{path} {headers}");
        }
        let (head, _) = ask(&mut client, "HEAD", &path, "Range: bytes=2-4\r\n");
        assert_eq!((status(&head), header(&head, "content-length")), (200, Some("10")));
        let empty = format!("{place}empty.txt");
        assert_eq!(status(&ask(&mut client, "GET", &empty, "Range: bytes=0-\r\n").0), 416);
    }
}

#[test]
fn a_part_of_a_long_file_is_read_from_where_it_stands() {
    let site = site();
    let content: Vec<u8> = (0..300_000_u32).map(|at| (at % 251) as u8).collect();
    site.write("public/long", &content);
    let server = serve_both(&site);
    let mut client = Raw::connect(server.local_addr());
    for (first, last) in [(0, 299_999), (65_535, 65_536), (100_000, 299_999), (299_999, 299_999)] {
        let headers = format!("Range: bytes={first}-{last}\r\n");
        client.send(
            format!("GET /folder/long HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n").as_bytes(),
        );
        assert_eq!(status(&client.head()), 206);
        assert!(client.take(last - first + 1) == content[first..=last], "{headers}");
    }
}

#[test]
fn browsers_may_be_told_to_keep_files() {
    let files =
        StaticFiles::embedded(EMBEDDED).cache_control("public, max-age=31536000, immutable");
    let server = serve(vec![route!("/*path" => files)]);
    let (head, _) = Raw::connect(server.local_addr()).ask(&get("/a.txt"));
    assert_eq!(header(&head, "cache-control"), Some("public, max-age=31536000, immutable"));
    let (head, _) = Raw::connect(server.local_addr()).ask(&get("/nothing"));
    assert_eq!(header(&head, "cache-control"), None, "what is missing now may come");
}

#[test]
fn what_cannot_work_is_an_error_at_the_start() {
    let site = site();
    let folder = || StaticFiles::new(site.0.join("public"));
    for (path, files, why) in [
        ("/assets", folder(), "write `/assets/*path`"),
        ("/assets/:name", folder(), "write `/assets/*path`"),
        ("/*path", StaticFiles::new(site.0.join("nowhere")), "nowhere"),
        ("/*path", StaticFiles::new(site.0.join("secret.txt")), "is no folder"),
        ("/*path", folder().cache_control("a\r\nb"), "no header can have"),
        ("/*path", StaticFiles::embedded(&[("/a.txt", b"")]), "\"/a.txt\""),
        ("/*path", StaticFiles::embedded(&[("a/../b", b"")]), "\"a/../b\""),
    ] {
        let started = Server::new(vec![route!(path => files)]).bind("127.0.0.1:0").spawn();
        let error = started.unwrap_err().to_string();
        assert!(error.contains(why) && error.contains(path), "{error}");
    }
}

/// As behind a controller of the program's own, which tells the server nothing of what it wraps.
#[test]
fn a_route_without_a_rest_is_an_error_of_the_program() {
    let files = StaticFiles::embedded(EMBEDDED);
    let wrapped = move |request: &Request| rwf::block_on(files.handle(request));
    let server = serve(vec![route!("/" => wrapped)]);
    assert_eq!(status(&Raw::connect(server.local_addr()).ask(&get("/")).0), 500);
}
