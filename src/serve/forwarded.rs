//! Whom a request really comes from, where a proxy that is trusted says so. Anybody else's word is ignored.

use std::net::IpAddr;
use std::str::FromStr;

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
    /// Whether `address` lies in the range; IPv4 in IPv6 clothes is IPv4.
    pub(super) fn holds(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => {
                let shift = 32_u32.saturating_sub(self.prefix_bits);
                let differ = ours.to_bits() ^ theirs.to_bits();
                differ.checked_shr(shift).unwrap_or(0) == 0
            }
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => {
                let shift = 128_u32.saturating_sub(self.prefix_bits);
                let differ = ours.to_bits() ^ theirs.to_bits();
                differ.checked_shr(shift).unwrap_or(0) == 0
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

/// The last hop of `X-Forwarded-For` that is no proxy of ours. What stands before it anybody may have
/// written.
pub(super) fn last_untrusted_hop(header: &str, trusted: &[Cidr]) -> Option<IpAddr> {
    let mut hop = None;
    for text in header.rsplit(',') {
        // What cannot be read ends the chain: nobody knows who is behind it.
        let Ok(address) = text.trim().parse::<IpAddr>() else {
            break;
        };
        hop = Some(address.to_canonical());
        if !trusted.iter().any(|it| it.holds(address)) {
            break;
        }
    }
    hop
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
        ] {
            let expected = hop.map(|it| it.parse().unwrap());
            assert_eq!(last_untrusted_hop(header, &trusted), expected, "{header}");
        }
    }
}
