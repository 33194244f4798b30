//! The client of a request, where a trusted proxy names it in `X-Forwarded-For`. From any other peer that is ignored.

use std::net::IpAddr;
use std::str::FromStr;
use std::time::{Duration, Instant};

use crate::log_limit::LogLimit;

/// A range of addresses, such as `10.0.0.0/8` or `::1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    address: IpAddr,
    prefix_bits: u32,
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "expected an address or a range, such as 10.0.0.0/8".to_owned();
        let (address, prefix) = text
            .split_once('/')
            .map_or((text, None), |(a, p)| (a, Some(p)));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let prefix_bits = match prefix {
            None => width,
            Some(digits) if digits.bytes().all(|it| it.is_ascii_digit()) => digits
                .parse()
                .ok()
                .filter(|it| *it <= width)
                .ok_or_else(wrong)?,
            Some(_) => return Err(wrong()),
        };
        Ok(Self {
            address,
            prefix_bits,
        })
    }
}

impl Cidr {
    /// Whether `address` lies in the range; an IPv4-mapped IPv6 address counts as IPv4.
    pub(super) fn holds(&self, address: IpAddr) -> bool {
        let (differing_bits, width) = match (self.address, address.to_canonical()) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => {
                (u128::from(ours.to_bits() ^ theirs.to_bits()), 32_u32)
            }
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => (ours.to_bits() ^ theirs.to_bits(), 128),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return false,
        };
        let beyond_prefix = width.saturating_sub(self.prefix_bits);
        differing_bits.checked_shr(beyond_prefix).unwrap_or(0) == 0
    }
}

/// The last hop of `X-Forwarded-For` that is no proxy of ours. What stands before it may have been written by anyone.
pub(super) fn last_untrusted_hop(header: &str, trusted: &[Cidr]) -> Option<IpAddr> {
    let mut hop = None;
    // Empty elements of a list are passed over (RFC 9110 §5.6.1.2).
    for text in header
        .rsplit(',')
        .map(str::trim)
        .filter(|it| !it.is_empty())
    {
        // What cannot be read ends the chain, because nothing before it can be trusted: the request counts as the
        // proxy's.
        let Some(address) = hop_address(text) else {
            report_unreadable(text);
            break;
        };
        hop = Some(address.to_canonical());
        if !trusted.iter().any(|it| it.holds(address)) {
            break;
        }
    }
    hop
}

/// The address that one hop names. Proxies write ports, brackets, quotes and zones around it.
fn hop_address(text: &str) -> Option<IpAddr> {
    let text = text
        .strip_prefix('"')
        .and_then(|it| it.strip_suffix('"'))
        .unwrap_or(text);
    if let Some(bracketed) = text.strip_prefix('[') {
        let (address, port) = bracketed.split_once(']')?;
        let has_port = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        return v6_address(address).filter(|_| has_port);
    }
    match text.split_once(':') {
        None => text.parse().ok(),
        Some((address, port)) if is_port(port) => address.parse().ok().map(IpAddr::V4),
        Some(_) => v6_address(text),
    }
}

/// An IPv6 address, whose zone (RFC 4007 §11) means nothing on another machine.
fn v6_address(text: &str) -> Option<IpAddr> {
    let address = text.split_once('%').map_or(text, |(address, _)| address);
    address.parse().ok().map(IpAddr::V6)
}

/// Some proxies write a port's name or an obfuscated one, but digits are what identifies a port.
fn is_port(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

/// A proxy that writes what cannot be read writes it with every request: one line a minute says it as well.
const REPORT_EVERY: Duration = Duration::from_mins(1);
/// A hop is quoted in the log up to here.
const REPORTED_CHARS: usize = 64;

const fn report_limit() -> LogLimit {
    LogLimit::of(1, REPORT_EVERY)
}

fn report_unreadable(hop: &str) {
    static LIMIT: LogLimit = report_limit();
    if LIMIT.admit(Instant::now()).is_some() {
        let hop: String = hop.chars().take(REPORTED_CHARS).collect();
        log::warn!(
            "X-Forwarded-For: a trusted proxy wrote {hop:?}, which is no address; such requests count as the proxy's own \
             (this is logged at most once a minute)"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_holds_what_begins_as_it_does() {
        for (range, address, holds) in [
            ("10.0.0.0/8", "10.9.8.7", true),
            ("10.0.0.0/8", "11.0.0.0", false),
            ("10.0.0.0/8", "::ffff:10.1.1.1", true),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1", "127.0.0.2", false),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("::/0", "2001:db8::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
        ] {
            let cidr: Cidr = range.parse().unwrap();
            assert_eq!(
                cidr.holds(address.parse().unwrap()),
                holds,
                "{range} {address}"
            );
        }
        for bad in [
            "",
            "10.0.0.0/33",
            "::/129",
            "10.0.0/8",
            "10.0.0.0/+8",
            "10.0.0.0/",
            "all",
        ] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_last_hop_that_is_not_ours_counts_and_nothing_before_it() {
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        for (header, hop) in [
            ("203.0.113.7", Some("203.0.113.7")),
            ("6.6.6.6, 203.0.113.7", Some("203.0.113.7")),
            ("6.6.6.6, 203.0.113.7, 10.0.0.2", Some("203.0.113.7")),
            ("10.0.0.3,10.0.0.2", Some("10.0.0.3")),
            ("203.0.113.7, nonsense", None),
            ("nonsense, 10.0.0.2", Some("10.0.0.2")),
            ("", None),
            // The values of several fields, joined.
            (",6.6.6.6,203.0.113.7,", Some("203.0.113.7")),
            ("203.0.113.7:51234, 10.0.0.2:80", Some("203.0.113.7")),
            ("\"203.0.113.7\"", Some("203.0.113.7")),
            ("2001:db8::7", Some("2001:db8::7")),
            ("[fe80::1%25eth0]:443", Some("fe80::1")),
            ("::ffff:203.0.113.7", Some("203.0.113.7")),
            ("[::ffff:203.0.113.7]:443", Some("203.0.113.7")),
        ] {
            let expected = hop.map(|it| it.parse().unwrap());
            assert_eq!(last_untrusted_hop(header, &trusted), expected, "{header}");
        }
    }

    #[test]
    fn what_is_no_address_names_nobody() {
        let hops = "unknown _hidden 203.0.113 203.0.113.7: 203.0.113.7:x 203.0.113.7:65536 203.0.113.7:1:2 \
                    [203.0.113.7] [203.0.113.7]:443 [2001:db8::7 2001:db8::7] [2001:db8::7]443 [2001:db8::7]: \
                    203.0.113.7%eth0 \"203.0.113.7 \"\" \" [] % : :80";
        for hop in hops.split(' ') {
            assert_eq!(hop_address(hop), None, "{hop}");
        }
    }

    #[test]
    fn an_unreadable_hop_is_reported_at_most_once_a_minute() {
        let (limit, start) = (report_limit(), Instant::now());
        let due: Vec<bool> = [0, 0, 59, 60, 61, 119, 120]
            .into_iter()
            .map(|it| limit.admit(start + Duration::from_secs(it)).is_some())
            .collect();
        assert_eq!(due, [true, false, false, true, false, false, true]);
    }
}
