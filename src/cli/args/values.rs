//! Parsers for the values of flags.

use std::time::Duration;

use totpd::api::messages::kind_of_event_type;
use totpd::model::Timestamp;
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
    let wrong = || "expected a number with d, h, m, s or ms, such as 90d".to_owned();
    // `ms` comes first, because it also ends with `s`.
    let (number, unit_ms) = [
        ("ms", 1),
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1_000),
    ]
    .into_iter()
    .find_map(|(unit, milliseconds)| Some((text.strip_suffix(unit)?, milliseconds)))
    .ok_or_else(wrong)?;
    let number: u64 = Some(number)
        .filter(|it| it.bytes().all(|it| it.is_ascii_digit()))
        .and_then(|it| it.parse().ok())
        .filter(|it| *it > 0)
        .ok_or_else(wrong)?;
    // A century is longer than any useful value, and adding it to a time does not overflow.
    number
        .checked_mul(unit_ms)
        .filter(|it| *it <= 36_500 * 86_400_000)
        .map(Duration::from_millis)
        .ok_or_else(|| "expected at most 36500d".to_owned())
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
