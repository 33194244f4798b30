//! Parsers for the values of flags.

use std::time::Duration;

use totpd::api::messages::kind_of_event_type;
use totpd::model::{Timestamp, parse_span};
use totpd::service::Service;

/// The lifetime of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Lifetime {
    For(Duration),
    Never,
}

pub(super) fn lifetime(text: &str) -> Result<Lifetime, String> {
    if text == "never" {
        Ok(Lifetime::Never)
    } else {
        span(text).map(Lifetime::For)
    }
}

/// A point in time on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Moment {
    At(Timestamp),
    /// So long before now.
    Ago(Duration),
}

pub(super) fn moment(text: &str) -> Result<Moment, String> {
    let ago = || span(text).map(Moment::Ago);
    text.parse().map(Moment::At).or_else(|_| {
        ago().map_err(|_| {
            "expected a time such as 2026-11-23T17:06:19Z, or how long ago, such as 2h".to_owned()
        })
    })
}

/// Reads the kind of an event, in totpd's words or as a type of ZITADEL's.
pub(super) fn event_kind(text: &str) -> Result<String, String> {
    let kind = kind_of_event_type(text);
    if Service::event_kinds().any(|it| it == kind) {
        return Ok(kind);
    }
    let kinds = Service::event_kinds().collect::<Vec<_>>().join(", ");
    Err(format!("expected one of {kinds}"))
}

/// Reads an origin as browsers write it (RFC 6454 §6.2): nothing after the port, no default port, no capitals.
pub(super) fn origin(text: &str) -> Result<String, String> {
    let rest = ["https://", "http://"]
        .iter()
        .find_map(|scheme| text.strip_prefix(scheme));
    let plain = |it: char| it.is_ascii_lowercase() || it.is_ascii_digit() || "-.:[]".contains(it);
    let fits = rest.is_some_and(|it| !it.is_empty() && it.chars().all(plain));
    let default_port = text.starts_with("https://") && text.ends_with(":443")
        || text.starts_with("http://") && text.ends_with(":80");
    (fits && !default_port)
        .then(|| text.to_owned())
        .ok_or_else(|| {
            "expected an origin as browsers send it, such as https://example.org".to_owned()
        })
}

/// Reads the URL that links begin with: a scheme, a host, and maybe a port and a path. Returns it without a slash at the
/// end. A query or a fragment would swallow what is appended, and a user name would look like the host.
pub(super) fn public_url(text: &str) -> Result<String, String> {
    let rest = ["https://", "http://"]
        .iter()
        .find_map(|scheme| text.strip_prefix(scheme));
    let (authority, path) = rest.map_or(("", ""), |it| it.split_once('/').unwrap_or((it, "")));
    let host = |it: char| it.is_ascii_alphanumeric() || "-._:[]".contains(it);
    let in_path = |it: char| it.is_ascii_alphanumeric() || "-._~%/".contains(it);
    let fits = !authority.is_empty() && authority.chars().all(host) && path.chars().all(in_path);
    fits.then(|| text.trim_end_matches('/').to_owned())
        .ok_or_else(|| {
            "expected a URL without user, query and fragment, such as https://totp.example.org"
                .to_owned()
        })
}

/// Reads a flag's value from its environment variable.
pub(super) fn switch(text: &str) -> Result<bool, String> {
    match text {
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err("expected 1, 0, true or false".to_owned()),
    }
}

/// Reads a file mode.
pub(super) fn mode(text: &str) -> Result<u32, String> {
    let digits =
        (3..=4).contains(&text.len()) && text.bytes().all(|it| (b'0'..=b'7').contains(&it));
    let mode = u32::from_str_radix(text, 8)
        .ok()
        .filter(|it| digits && *it <= 0o777);
    mode.ok_or_else(|| "expected three octal digits, such as 660".to_owned())
}

/// Reads a length of time: a number and one of d, h, m, s, ms.
pub(super) fn span(text: &str) -> Result<Duration, String> {
    parse_span(text).map_err(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_what_a_browser_would_send() {
        for good in [
            "https://example.org",
            "http://localhost:3000",
            "http://[::1]:8080",
        ] {
            assert_eq!(origin(good).unwrap(), good);
        }
        for bad in [
            "",
            "*",
            "null",
            "example.org",
            "https://",
            "https://example.org/",
            "https://example.org:443",
            "http://example.org:80",
            "https://Example.org",
            "ftp://example.org",
            "https://a\r\nb",
        ] {
            assert!(origin(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_public_url_is_a_host_and_maybe_a_path() {
        for (good, read) in [
            ("https://totp.example.org", "https://totp.example.org"),
            ("https://Example.org/", "https://Example.org"),
            ("http://[::1]:8080/a/b/", "http://[::1]:8080/a/b"),
        ] {
            assert_eq!(public_url(good).unwrap(), read);
        }
        for bad in [
            "",
            "example.org",
            "https://",
            "https:///path",
            "javascript://example.org",
            "https://user@example.org",
            "https://example.org?a=b",
            "https://example.org/#a",
            "https://exa mple.org",
            "https://example.org/a\r\nb",
        ] {
            assert!(public_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn lengths_of_time_are_read_strictly() {
        assert_eq!(span("90d").unwrap(), Duration::from_hours(90 * 24));
        assert_eq!(span("45s").unwrap(), Duration::from_secs(45));
        assert_eq!(span("50ms").unwrap(), Duration::from_millis(50));
        assert_eq!(lifetime("never").unwrap(), Lifetime::Never);
        assert_eq!(moment("2h"), Ok(Moment::Ago(Duration::from_hours(2))));
        let epoch = Moment::At(Timestamp::from_seconds(0));
        assert_eq!(moment("1970-01-01T00:00:00Z"), Ok(epoch));
        assert!(moment("yesterday").is_err());
        for bad in [
            "",
            "d",
            "90",
            "-1d",
            "+1d",
            "1.5h",
            "1w",
            "0s",
            "36501d",
            "99999999999999999999d",
        ] {
            assert!(span(bad).is_err(), "{bad}");
        }
    }
}
