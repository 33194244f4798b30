//! The files of the web pages: their paths, headers and size. `tests/browser/try` tests their behaviour in a real
//! browser. SECURITY.md 41.

#[cfg(feature = "web")]
use std::collections::BTreeSet;
#[cfg(feature = "web")]
use std::time::{Duration, Instant};

use crate::binary::{Home, Server};
use crate::harness::{Client, TestServer};
use crate::wait;

/// The paths of the files, and their media types.
#[cfg(feature = "web")]
const FILES: [(&str, &str); 14] = [
    ("/", "text/html; charset=utf-8"),
    ("/ui", "text/html; charset=utf-8"),
    ("/ui/", "text/html; charset=utf-8"),
    ("/ui/style.css", "text/css; charset=utf-8"),
    ("/ui/app.js", "text/javascript; charset=utf-8"),
    ("/ui/lib.js", "text/javascript; charset=utf-8"),
    ("/ui/words.js", "text/javascript; charset=utf-8"),
    ("/ui/user.js", "text/javascript; charset=utf-8"),
    ("/ui/admin.js", "text/javascript; charset=utf-8"),
    ("/ui/events.js", "text/javascript; charset=utf-8"),
    ("/docs", "text/html; charset=utf-8"),
    ("/ui/docs.css", "text/css; charset=utf-8"),
    ("/ui/docs.js", "text/javascript; charset=utf-8"),
    ("/ui/?a=b", "text/html; charset=utf-8"),
];

/// The headers that every page needs. The browser test shows that they work, and this one that every file has them.
#[cfg(feature = "web")]
const HEADERS: [(&str, &str); 5] = [
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
         form-action 'none'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'",
    ),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    (
        "permissions-policy",
        "camera=(), geolocation=(), microphone=()",
    ),
];

/// SECURITY.md 41
#[cfg(feature = "web")]
#[test]
fn every_file_has_its_type_and_the_strict_headers() {
    let server = TestServer::start();
    for (path, content_type) in FILES {
        let answer = server.raw("GET", path, "", b"").expect_status(200);
        assert_eq!(answer.header("content-type"), Some(content_type), "{path}");
        for (name, value) in HEADERS {
            assert_eq!(answer.header(name), Some(value), "{path}: {name}");
        }
        assert!(answer.header("set-cookie").is_none(), "{path}");
        assert!(!answer.body.is_empty(), "{path}");
        // Without TLS a page must not tell the browser to use TLS in the future.
        assert!(answer.header("strict-transport-security").is_none());
        let head = server.raw("HEAD", path, "", b"").expect_status(200);
        assert_eq!(
            head.header("content-length"),
            answer.header("content-length")
        );
        for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
            let refused = server.raw(method, path, "", b"");
            let refused = refused.expect_error(405, 12, None);
            assert_eq!(refused.header("allow"), Some("GET, HEAD"));
        }
    }
}

/// Behind a proxy that serves totpd below a path of its own, addresses that begin with a slash would be wrong.
#[cfg(feature = "web")]
#[test]
fn the_page_names_its_files_relative_to_where_it_is() {
    let server = TestServer::start();
    let page = |path| {
        let answer = server.raw("GET", path, "", b"").expect_status(200);
        String::from_utf8(answer.body).unwrap()
    };
    let (below, beside) = (page("/ui/"), page("/"));
    assert_eq!(page("/ui"), beside);
    assert!(below.contains("src=\"./app.js\"") && beside.contains("src=\"./ui/app.js\""));
    assert!(!below.contains("=\"/") && !beside.contains("=\"/"));
    assert!(beside.contains("href=\"./ui/style.css\""));
}

#[test]
fn what_is_no_file_of_the_pages_is_not_found() {
    let server = TestServer::start();
    for path in [
        "/ui/nothing",
        "/ui/index.html",
        "/ui//",
        "/ui/app.js/",
        "/ui/../Cargo.toml",
        "/ui/%2e%2e/Cargo.toml",
        "/UI/",
        "/app.js",
    ] {
        for method in ["GET", "POST"] {
            let answer = server.raw(method, path, "", b"");
            answer.expect_error(404, 5, None);
        }
    }
}

/// Without the feature `web` the binary has no pages. With `--no-web` it does not serve them.
#[test]
fn without_pages_their_paths_are_not_found() {
    let server = if cfg!(feature = "web") {
        TestServer::builder().without_pages().start()
    } else {
        TestServer::start()
    };
    server
        .raw("GET", "/openapi.json", "", b"")
        .expect_status(200);
    for path in ["/", "/ui", "/ui/", "/ui/app.js", "/ui/style.css", "/docs"] {
        for method in ["GET", "HEAD", "POST"] {
            let answer = server.raw(method, path, "", b"").expect_status(404);
            assert!(answer.header("content-security-policy").is_none());
        }
    }
    // The rest of the server is not affected.
    let healthz = server.raw("GET", "/debug/healthz", "", b"");
    healthz.expect_status(200);
}

/// The flag and its environment variable, on the real binary. It logs nothing about pages.
#[test]
fn the_flag_no_web_leaves_the_pages_out() {
    let (home, _) = Home::init();
    let status = |args: &[&str], variable: Option<&str>| {
        let mut serve = home.command(&["serve", "--listen", "127.0.0.1:0"]);
        serve.args(args).stdout(std::process::Stdio::piped());
        if let Some(value) = variable {
            serve.env("TOTPD_NO_WEB", value);
        }
        let mut child = serve.spawn().unwrap();
        let (address, _) = wait::listening(&mut child).unwrap();
        let server = Server::new(child, &address);
        let answer = Client::connect(&server.address).ask("GET", "/ui/", "", b"");
        assert_eq!(server.terminate().0, 0);
        answer.status
    };
    let served = if cfg!(feature = "web") { 200 } else { 404 };
    assert_eq!(status(&[], None), served);
    assert_eq!(status(&[], Some("0")), served);
    assert_eq!(status(&["--no-web"], None), 404);
    assert_eq!(status(&[], Some("1")), 404);
}

/// The first load of a page is short on a slow line, and the pages add little to the binary.
#[cfg(feature = "web")]
#[test]
fn the_first_load_is_small() {
    let server = TestServer::start();
    let load = |name: &str| {
        let answer = server.raw("GET", &format!("/ui/{name}"), "", b"");
        String::from_utf8(answer.expect_status(200).body).unwrap()
    };
    // All files that a page and its scripts refer to, directly or indirectly.
    let closure = |first: &str| {
        let mut found = BTreeSet::from([String::new()]);
        let mut left = vec![String::new(), first.to_owned()];
        while let Some(name) = left.pop() {
            found.insert(name.clone());
            let text = load(&name);
            let named = text
                .match_indices("\"./")
                .map(|(at, it)| (at + it.len(), '"'));
            let imported = text
                .match_indices("from './")
                .map(|(at, it)| (at + it.len(), '\''));
            for (at, end) in named.chain(imported) {
                let name = text[at..].split(end).next().unwrap().to_owned();
                if !found.contains(&name) {
                    left.push(name);
                }
            }
        }
        found
    };
    // The user's own page and the administrator's page.
    for first in ["user.js", "admin.js"] {
        let files = closure(first);
        let bytes: usize = files.iter().map(|it| load(it).len()).sum();
        assert!(files.len() <= 6, "{files:?}");
        assert!(bytes <= 60 * 1024, "{first}: {bytes} bytes");
    }
    let all: usize = FILES[2..10]
        .iter()
        .map(|(path, _)| load(&path[4..]).len())
        .sum();
    assert!(all <= 300 * 1024, "{all}");
}

/// The page that shows the API description. It reads `/openapi.json`, which is served even without pages.
#[cfg(feature = "web")]
#[test]
fn the_page_of_the_description_is_small_and_reads_it() {
    let server = TestServer::start();
    let load = |path: &str| {
        let answer = server.raw("GET", path, "", b"").expect_status(200);
        String::from_utf8(answer.body).unwrap()
    };
    let (page, style, script) = (load("/docs"), load("/ui/docs.css"), load("/ui/docs.js"));
    assert!(page.contains("href=\"./ui/docs.css\"") && page.contains("src=\"./ui/docs.js\""));
    assert!(script.contains("fetch(\"openapi.json\")"));
    assert!(page.len() + style.len() + script.len() <= 15 * 1024);
    load("/openapi.json");
    // Below /ui/ its relative address of the description would not exist.
    server
        .raw("GET", "/ui/docs.html", "", b"")
        .expect_error(404, 5, None);
}

/// The scripts load nothing from other origins, store nothing in the browser, and never turn text into markup. The
/// policy prevents the first and the last in the browser too. This test finds them earlier.
#[cfg(feature = "web")]
#[test]
fn the_scripts_use_nothing_from_elsewhere_and_keep_nothing() {
    let server = TestServer::start();
    for (path, _) in &FILES[2..13] {
        let answer = server.raw("GET", path, "", b"").expect_status(200);
        let text = String::from_utf8(answer.body).unwrap();
        let text = text.replace("http://www.w3.org/2000/svg", "");
        for forbidden in [
            "http://",
            "https://",
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "localStorage",
            "sessionStorage",
            "indexedDB",
            "document.cookie",
            "style=",
            "<script>",
        ] {
            assert!(!text.contains(forbidden), "{path} has {forbidden}");
        }
    }
}

/// Pages need no worker, like `/debug/healthz`.
#[cfg(feature = "web")]
#[test]
fn pages_come_while_all_workers_are_stuck() {
    let server = TestServer::start();
    let stuck = server.stuck.lock().unwrap();
    let mut waiting: Vec<_> = (0..16)
        .map(|_| {
            let mut client = Client::connect(&server.address());
            client.send(b"GET /stuck HTTP/1.1\r\nHost: t\r\n\r\n");
            client
        })
        .collect();
    let begun = Instant::now();
    for path in ["/ui/app.js", "/docs", "/openapi.json"] {
        server.raw("GET", path, "", b"").expect_status(200);
    }
    assert!(begun.elapsed() < Duration::from_secs(2));
    drop(stuck);
    for client in &mut waiting {
        client.answer(false, "stuck").expect_error(404, 5, None);
    }
}
