//! The client's address, past the proxies that the operator trusts. Limits apply to it before a
//! request is authenticated.

use std::net::{IpAddr, SocketAddr};

use axum::extract::ConnectInfo;
use baton_service::accept::network;
use baton_service::config::{ForwardedHeader, HttpConfig};
use http::header::{FORWARDED, HeaderName};
use http::{Extensions, HeaderMap};
use ipnet::IpNet;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The address of a request's client; an extension of every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClientAddress(pub(crate) IpAddr);

impl ClientAddress {
    /// Returns the network by which this address is counted: for IPv6 the first 64 bits, since a
    /// client with one of these addresses usually has them all.
    pub(crate) fn network(self) -> IpAddr {
        network(self.0)
    }
}

/// The trusted proxies, and the header in which they report the client's address.
#[derive(Debug, Clone)]
pub(crate) struct Proxies {
    trusted: Vec<IpNet>,
    header: ForwardedHeader,
}

impl Proxies {
    pub(crate) fn new(config: &HttpConfig) -> Self {
        Self {
            trusted: config.trusted_proxies.clone(),
            header: config.forwarded_header,
        }
    }

    /// Returns the client's address: the peer's; if that is a trusted proxy, the address that it
    /// reports; and so on from the nearest proxy to the farthest. Anybody may have written the
    /// entries beyond the first untrusted address.
    pub(crate) fn client(&self, headers: &HeaderMap, extensions: &Extensions) -> Option<IpAddr> {
        let peer = extensions.get::<ConnectInfo<SocketAddr>>()?;
        let mut client = peer.0.ip().to_canonical();
        if !self.trusts(client) {
            return Some(client);
        }
        let said = match self.header {
            ForwardedHeader::XForwardedFor => elements(headers, &X_FORWARDED_FOR),
            ForwardedHeader::Forwarded => elements(headers, &FORWARDED),
        };
        for element in said.into_iter().rev() {
            let address = match self.header {
                ForwardedHeader::XForwardedFor => read(element),
                ForwardedHeader::Forwarded => for_of(element).and_then(read),
            };
            // An entry that is not an address ends the chain: nobody knows the client before it.
            let Some(address) = address else { break };
            client = address;
            if !self.trusts(client) {
                break;
            }
        }
        Some(client)
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|net| net.contains(&address))
    }
}

/// Returns the elements of a list in one header or several. Values that are no text are empty.
fn elements<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Vec<&'a str> {
    headers
        .get_all(name)
        .iter()
        .flat_map(|value| value.to_str().unwrap_or_default().split(','))
        .map(str::trim)
        .collect()
}

/// Returns `for=` of one element of `Forwarded` (RFC 7239).
fn for_of(element: &str) -> Option<&str> {
    element.split(';').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim()
            .eq_ignore_ascii_case("for")
            .then(|| value.trim().trim_matches('"'))
    })
}

/// Parses an address with or without a port and brackets.
fn read(text: &str) -> Option<IpAddr> {
    let address = text.parse::<IpAddr>().ok();
    let address = address.or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip()));
    let address = address.or_else(|| text.strip_prefix('[')?.strip_suffix(']')?.parse().ok());
    address.map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn client(header: ForwardedHeader, peer: &str, said: &[(&HeaderName, &str)]) -> String {
        let proxies = Proxies {
            trusted: vec![
                "10.0.0.0/8".parse().unwrap(),
                "2001:db8:1::/48".parse().unwrap(),
            ],
            header,
        };
        let mut headers = HeaderMap::new();
        for (name, value) in said {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        let mut extensions = Extensions::new();
        extensions.insert(ConnectInfo(peer.parse::<SocketAddr>().unwrap()));
        let client = proxies.client(&headers, &extensions);
        client.unwrap().to_string()
    }

    #[test]
    fn what_an_untrusted_peer_says_about_addresses_is_ignored() {
        let x = &X_FORWARDED_FOR;
        for header in [ForwardedHeader::XForwardedFor, ForwardedHeader::Forwarded] {
            let said = [(x, "198.51.100.7"), (&FORWARDED, "for=198.51.100.7")];
            assert_eq!(client(header, "192.0.2.1:5", &said), "192.0.2.1");
            assert_eq!(client(header, "[::ffff:192.0.2.1]:5", &said), "192.0.2.1");
        }
    }

    #[test]
    fn the_client_is_the_nearest_that_is_no_trusted_proxy() {
        let x = &X_FORWARDED_FOR;
        for (said, found) in [
            (&[][..], "10.0.0.1"),
            (&[(x, "198.51.100.7")], "198.51.100.7"),
            (&[(x, "198.51.100.7:443")], "198.51.100.7"),
            (
                &[(x, "203.0.113.9, 198.51.100.7, 10.1.1.1")],
                "198.51.100.7",
            ),
            (&[(x, "203.0.113.9"), (x, "198.51.100.7")], "198.51.100.7"),
            (&[(x, "203.0.113.9, nonsense, 10.1.1.1")], "10.1.1.1"),
            (&[(x, "10.2.2.2, 10.1.1.1")], "10.2.2.2"),
            (&[(x, "2001:db8::7")], "2001:db8::7"),
            (&[(&FORWARDED, "for=198.51.100.7")], "10.0.0.1"),
        ] {
            let found_now = client(ForwardedHeader::XForwardedFor, "10.0.0.1:5", said);
            assert_eq!(found_now, found, "{said:?}");
        }
        let x_too = (x, "203.0.113.9");
        for (said, found) in [
            ("for=198.51.100.7;proto=https", "198.51.100.7"),
            ("proto=http; For=\"[2001:db8::7]:4711\"", "2001:db8::7"),
            ("for=203.0.113.9, for=\"[2001:db8::7]\"", "2001:db8::7"),
            ("for=203.0.113.9, for=unknown", "10.0.0.1"),
            ("for=203.0.113.9, by=10.0.0.1", "10.0.0.1"),
        ] {
            let said = [x_too, (&FORWARDED, said)];
            let found_now = client(ForwardedHeader::Forwarded, "10.0.0.1:5", &said);
            assert_eq!(found_now, found, "{said:?}");
        }
    }

    /// Generates header values that proxies and lying clients write.
    fn said() -> impl Strategy<Value = Vec<u8>> {
        let part = prop_oneof![
            Just("198.51.100.7".to_owned()),
            Just("10.1.1.1".to_owned()),
            Just("[2001:db8::7]:443".to_owned()),
            Just("for=\"[2001:db8::7]\"".to_owned()),
            Just("For=10.2.2.2;by=x".to_owned()),
            Just("unknown".to_owned()),
            "[ -~]{0,12}",
        ];
        let list = proptest::collection::vec(part, 0..5).prop_map(|parts| parts.join(", ").into());
        let noise = proptest::collection::vec(any::<u8>(), 0..40);
        prop_oneof![4 => list, 1 => noise]
    }

    proptest! {
        #[test]
        fn whatever_is_said_the_client_is_the_peer_or_somebody_behind_trusted_proxies(
            values in proptest::collection::vec(said(), 0..3),
            trusted in any::<bool>(),
            rfc in any::<bool>(),
        ) {
            let (header, name) = if rfc {
                (ForwardedHeader::Forwarded, FORWARDED)
            } else {
                (ForwardedHeader::XForwardedFor, X_FORWARDED_FOR)
            };
            let mut headers = HeaderMap::new();
            let mut said = String::new();
            for value in &values {
                if let Ok(value) = HeaderValue::from_bytes(value) {
                    said.push_str(value.to_str().unwrap_or_default());
                    headers.append(name.clone(), value);
                }
            }
            let proxies = Proxies { trusted: vec!["10.0.0.0/8".parse().unwrap()], header };
            let peer = if trusted { "10.0.0.1:5" } else { "192.0.2.1:5" };
            let peer: SocketAddr = peer.parse().unwrap();
            let mut extensions = Extensions::new();
            extensions.insert(ConnectInfo(peer));
            let client = proxies.client(&headers, &extensions).unwrap();
            if trusted {
                let written = said.contains(&client.to_string());
                prop_assert!(client == peer.ip() || written, "{client} of {said}");
            } else {
                prop_assert_eq!(client, peer.ip());
            }
        }
    }
}
