//! The pages for people, as files that are part of the binary.
//!
//! A path comes in and a file goes out: this module knows neither users nor SQL, and no requests. The pages themselves
//! (`src/web`) call the API as every other client does. Without the feature `web` there are no files.

/// A file of the pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct File {
    /// The media type.
    pub(crate) content_type: &'static str,
    /// The content.
    pub(crate) bytes: &'static [u8],
    /// Whether the path is beside the folder of the pages, so that their relative addresses begin with its name.
    is_beside: bool,
}

const HTML: &str = "text/html; charset=utf-8";
#[cfg(feature = "web")]
const CSS: &str = "text/css; charset=utf-8";
#[cfg(feature = "web")]
const JS: &str = "text/javascript; charset=utf-8";

/// The paths, with their media types.
#[cfg(feature = "web")]
const FILES: &[(&str, &str, &[u8])] = &[
    ("/ui/", HTML, include_bytes!("web/index.html")),
    ("/ui/style.css", CSS, include_bytes!("web/style.css")),
    ("/ui/app.js", JS, include_bytes!("web/app.js")),
    ("/ui/lib.js", JS, include_bytes!("web/lib.js")),
    ("/ui/words.js", JS, include_bytes!("web/words.js")),
    ("/ui/user.js", JS, include_bytes!("web/user.js")),
    ("/ui/admin.js", JS, include_bytes!("web/admin.js")),
    ("/ui/events.js", JS, include_bytes!("web/events.js")),
    ("/docs", HTML, include_bytes!("web/docs.html")),
    ("/ui/docs.css", CSS, include_bytes!("web/docs.css")),
    ("/ui/docs.js", JS, include_bytes!("web/docs.js")),
];
#[cfg(not(feature = "web"))]
const FILES: &[(&str, &str, &[u8])] = &[];

/// Headers of every file. The policy allows scripts, styles and connections of this origin alone, and no text to become
/// a script or markup (SECURITY.md 41).
pub(crate) const HEADERS: [(&str, &str); 5] = [
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
         form-action 'none'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'",
    ),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    (
        "Permissions-Policy",
        "camera=(), geolocation=(), microphone=()",
    ),
];

/// The header that keeps a browser from asking without TLS, where the page came over TLS.
pub(crate) const TLS_HEADER: (&str, &str) = ("Strict-Transport-Security", "max-age=31536000");

/// Finds the file of a path. The first page is at `/`, at `/ui` and at `/ui/`.
pub(crate) fn find(path: &str) -> Option<File> {
    let wanted = match path {
        "/" | "/ui" => "/ui/",
        _ => path,
    };
    let file = FILES.iter().find(|(known, ..)| *known == wanted);
    file.map(|(_, content_type, bytes)| File {
        content_type,
        bytes,
        is_beside: !path.starts_with("/ui/"),
    })
}

impl File {
    /// The bytes to send. Addresses in the pages are relative, so that a proxy may serve totpd below a path of its own.
    pub(crate) fn body(&self) -> Vec<u8> {
        if self.is_beside && self.content_type == HTML {
            let page = String::from_utf8_lossy(self.bytes);
            return page.replace("\"./", "\"./ui/").into_bytes();
        }
        self.bytes.to_vec()
    }
}
