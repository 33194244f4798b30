//! Lists of `otpauth` URIs, one a line, in the form of Google's Key-Uri-Format and as programs write it.

use percent_encoding::percent_decode_str;
use totpd::error::Result;

use super::fields::{Draft, Fault, SecretRule, given};
use super::input::{LINE_BYTES, Source};
use super::{Place, ReadOptions, Sink};

/// Reads a list of URIs. A line that begins with `#` is a comment.
pub(super) fn read(source: &mut Source, options: &ReadOptions, sink: &mut Sink<'_>) -> Result<()> {
    while let Some(line) = source.next_line(LINE_BYTES)? {
        let place = Place::Line(line.number);
        let Some(text) = line.text else {
            sink(place, Err(Fault::new("it is not UTF-8")))?;
            continue;
        };
        if text.starts_with('#') {
            continue;
        }
        let draft = entry(&text, options.secrets);
        let row = draft.and_then(|it| options.finish(it));
        sink(place, row)?;
    }
    if !source.ends_with_newline() {
        let note = "the last line does not end as a line; if the file was cut off, look at its last authenticator";
        source.notes.push(note.to_owned());
    }
    Ok(())
}

/// A URI, or a secret in base32 alone, as Bitwarden keeps it.
pub(super) fn entry(text: &str, secrets: SecretRule) -> Result<Draft, Fault> {
    let Some((scheme, rest)) = text.split_once("://") else {
        let is_base32 = |it: char| it.is_ascii_alphanumeric() || matches!(it, ' ' | '-' | '=');
        if text.len() < 16 || !text.chars().all(is_base32) {
            return Err(Fault::new("it is no otpauth URI"));
        }
        return Ok(Draft {
            secret: Some(secrets.base32(text)?),
            ..Draft::default()
        });
    };
    match scheme.to_ascii_lowercase().as_str() {
        "otpauth" => uri(rest, secrets),
        "steam" => Err(steam()),
        _ => Err(Fault::new("it is no otpauth URI")),
    }
}

fn steam() -> Fault {
    Fault::new("Steam's codes are not those of RFC 6238")
}

/// The URI after `otpauth://`.
fn uri(rest: &str, secrets: SecretRule) -> Result<Draft, Fault> {
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (kind, label) = path.split_once('/').unwrap_or((path, ""));
    match kind.to_ascii_lowercase().as_str() {
        "totp" => {}
        "hotp" => return Err(Fault::new("it is HOTP, by counter; only TOTP is taken")),
        "steam" => return Err(steam()),
        _ => return Err(Fault::new("its type is not totp")),
    }
    let (mut draft, mut issuer, mut encoder) = (Draft::default(), None, None);
    let mut secret = None;
    for part in query.split('#').next().unwrap_or_default().split('&') {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let into = match name.to_ascii_lowercase().as_str() {
            "secret" => &mut secret,
            "issuer" => &mut issuer,
            "algorithm" => &mut draft.algorithm,
            "digits" => &mut draft.digits,
            "period" => &mut draft.period,
            "encoder" => &mut encoder,
            // A counter, a picture, a colour.
            _ => continue,
        };
        if into.is_some() {
            return Err(Fault::new("a parameter occurs twice"));
        }
        *into = Some(decoded(&value.replace('+', " "))?);
    }
    if encoder.is_some_and(|it| it.eq_ignore_ascii_case("steam")) {
        return Err(steam());
    }
    draft.username = Some(account(label, &decoded(label)?, issuer.as_deref())?);
    let secret = secret.ok_or_else(|| Fault::new("it has no secret"))?;
    draft.secret = Some(secrets.base32(&secret)?);
    Ok(draft)
}

fn decoded(text: &str) -> Result<String, Fault> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded
        .map(|it| it.into_owned())
        .map_err(|_| Fault::new("its percent-encoding is no UTF-8"))
}

/// The account in a label, which may begin with an issuer and a colon.
///
/// Neither may hold a colon, and programs write such all the same. So what the parameter `issuer` names is left out first;
/// else a single colon separates; and with several of them all is the account, as Aegis reads it.
pub(super) fn account(encoded: &str, whole: &str, issuer: Option<&str>) -> Result<String, Fault> {
    let account = of_issuer(whole, issuer)
        .or_else(|| {
            whole
                .split_once(':')
                .filter(|_| has_one_separator(encoded))
                .map(|it| it.1)
        })
        .unwrap_or(whole);
    let account = given(account).ok_or_else(|| Fault::new("its label names no account"))?;
    Ok(account.to_owned())
}

/// What stands after the issuer and a colon.
fn of_issuer<'a>(label: &'a str, issuer: Option<&str>) -> Option<&'a str> {
    let issuer = given(issuer?)?;
    let (front, rest) = label.split_at_checked(issuer.len())?;
    let rest = rest.trim_start().strip_prefix(':')?;
    (front.to_lowercase() == issuer.to_lowercase()).then_some(rest)
}

/// Whether one colon separates issuer and account. One that is not encoded comes before those that are.
fn has_one_separator(label: &str) -> bool {
    match label.matches(':').count() {
        0 => label.to_ascii_lowercase().matches("%3a").count() == 1,
        plain => plain == 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: SecretRule = SecretRule {
        allows_short: false,
    };
    const SECRET: &str = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";

    fn account_of(label: &str, more: &str) -> Result<String, String> {
        let text = format!("otpauth://totp/{label}?secret={SECRET}{more}");
        let draft = entry(&text, RULE);
        draft
            .map(|it| it.username.unwrap_or_default())
            .map_err(|it| it.to_string())
    }

    #[test]
    fn the_account_is_found_in_every_label_in_use() {
        for (label, more, expected) in [
            ("alice", "", "alice"),
            (
                "Example:alice@example.com",
                "&issuer=Example",
                "alice@example.com",
            ),
            ("Example%3Aalice", "", "alice"),
            ("Example%3aalice", "", "alice"),
            ("Example:%20alice", "&issuer=Other", "alice"),
            ("Example%3A%20alice", "&issuer=Example", "alice"),
            ("Ex%20ample:alice", "&issuer=Ex+ample", "alice"),
            ("EXAMPLE:alice", "&issuer=Example", "alice"),
            ("Test:x%3Ay", "&issuer=Test", "x:y"),
            ("Test:x%3Ay", "", "x:y"),
            ("A:B:C", "&issuer=A", "B:C"),
            ("A:B:C", "", "A:B:C"),
            ("alice+tag@example.com", "", "alice+tag@example.com"),
            ("%C3%A4", "&image=https%3A%2F%2Fx&color=red&lock=true", "ä"),
        ] {
            assert_eq!(
                account_of(label, more).as_deref(),
                Ok(expected),
                "{label} {more}"
            );
        }
        for bad in ["", "Example:", "Example:%20", "%FF"] {
            assert!(account_of(bad, "").is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_no_totp_is_refused_and_nothing_of_it_is_repeated() {
        for (text, reason) in [
            (
                "otpauth://hotp/a?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&counter=1",
                "HOTP",
            ),
            (
                "otpauth://steam/a?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ",
                "Steam",
            ),
            (
                "otpauth://totp/a?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&encoder=steam",
                "Steam",
            ),
            ("steam://GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ", "Steam"),
            (
                "otpauth://yaotp/a?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ",
                "type",
            ),
            ("https://example.com/GEZDGNBVGY3TQOJQ", "no otpauth URI"),
            ("GEZDGNBVGY3TQOJQ!", "no otpauth URI"),
            ("otpauth://totp/a", "no secret"),
            (
                "otpauth://totp/a?secret=GEZDGNBVGY3TQOJQ&secret=GEZDGNBVGY3TQOJQ",
                "twice",
            ),
            ("otpauth://totp/a?secret=GEZDGNBVGY3TQOJQ", "80 bits"),
            ("otpauth://totp/a?secret=0OZDGNBVGY3TQOJQ", "0, 1, 8 and 9"),
        ] {
            let fault = entry(text, RULE).err().unwrap().to_string();
            assert!(fault.contains(reason), "{text}: {fault}");
            assert!(!fault.contains("GNBVGY3T"), "{fault}");
        }
    }

    #[test]
    fn parameters_are_read_whatever_their_case() {
        let text = "OTPAUTH://TOTP/a?Secret=gezd%20gnbv+gy3t-qojq-gezd-gnbv-gy3t-qojq&ALGORITHM=HmacSHA512&digits=7&period=60";
        let draft = entry(text, RULE).ok().unwrap();
        assert_eq!(*draft.secret.unwrap().base32(), SECRET);
        assert_eq!(draft.algorithm.as_deref(), Some("HmacSHA512"));
        assert_eq!(draft.digits.as_deref(), Some("7"));
        assert_eq!(draft.period.as_deref(), Some("60"));
    }
}
