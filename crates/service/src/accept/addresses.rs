//! The connections of each client address, so that none of them has all.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use ipnet::IpNet;
use socket2::SockRef;
use tokio::net::TcpStream;

/// The answer to a connection beyond the limit, in the shape of the API's errors.
const REFUSAL: &[u8] = b"HTTP/1.1 429 Too Many Requests\r\n\
    content-type: application/problem+json\r\n\
    retry-after: 5\r\n\
    connection: close\r\n\
    content-length: 143\r\n\r\n\
    {\"type\":\"about:blank\",\"title\":\"Too Many Requests\",\"status\":429,\
    \"code\":\"too_many_connections\",\"detail\":\"close some connections of this address\"}";

/// Returns the part of an address that one client has: of an IPv6 address the first 64 bits.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(six) => Ipv6Addr::from_bits(six.to_bits() >> 64 << 64).into(),
        four @ IpAddr::V4(_) => four,
    }
}

/// The connections that a client address may have at a listener.
#[derive(Debug, Clone)]
pub struct AddressLimit {
    /// Open connections of one address.
    pub connections: usize,
    /// Networks of proxies, which connect for many clients and are not limited.
    pub excepted: Vec<IpNet>,
}

/// The open connections of a listener, by network. Clones share them.
#[derive(Clone)]
pub(super) struct Addresses {
    limit: Option<AddressLimit>,
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Addresses {
    pub(super) fn new(limit: Option<AddressLimit>) -> Self {
        Self {
            limit,
            open: Arc::default(),
        }
    }

    /// Takes a place for a connection, unless its address has as many as it may have.
    pub(super) fn take(&self, address: IpAddr) -> Option<Place> {
        let mut place = Place {
            network: None,
            open: Arc::clone(&self.open),
        };
        let Some(limit) = &self.limit else {
            return Some(place);
        };
        let address = address.to_canonical();
        if limit.excepted.iter().any(|net| net.contains(&address)) {
            return Some(place);
        }
        let network = network(address);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(network).or_default();
        if *count >= limit.connections {
            return None;
        }
        *count += 1;
        place.network = Some(network);
        Some(place)
    }
}

/// Tells a client that its address has too many connections, if its socket takes that at once.
pub(super) fn refuse(stream: &TcpStream) {
    let socket = SockRef::from(stream);
    let _ = socket.send(REFUSAL);
    let _ = socket.shutdown(std::net::Shutdown::Write);
}

/// A connection's place; given back when dropped.
pub(super) struct Place {
    network: Option<IpAddr>,
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(network) = self.network else { return };
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut count) = open.entry(network) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses() -> Addresses {
        Addresses::new(Some(AddressLimit {
            connections: 2,
            excepted: vec!["10.0.0.0/8".parse().unwrap()],
        }))
    }

    #[test]
    fn an_address_has_its_connections_and_gets_them_back() {
        let addresses = addresses();
        let take = |address: &str| addresses.take(address.parse().unwrap());
        let first = take("192.0.2.1").unwrap();
        let _second = take("::ffff:192.0.2.1").unwrap();
        assert!(take("192.0.2.1").is_none(), "however it is written");
        assert!(take("192.0.2.2").is_some());
        drop(first);
        assert!(take("192.0.2.1").is_some());
    }

    #[test]
    fn half_of_an_ipv6_address_is_one_client() {
        let addresses = addresses();
        let take = |address: &str| addresses.take(address.parse().unwrap());
        let _held = [
            take("2001:db8::1").unwrap(),
            take("2001:db8::ffff:2").unwrap(),
        ];
        assert!(take("2001:db8:0:0:a::1").is_none());
        assert!(take("2001:db8:0:1::1").is_some());
    }

    #[test]
    fn proxies_that_are_trusted_are_not_counted() {
        let addresses = addresses();
        let held: Vec<_> = (0..9)
            .map(|_| addresses.take("10.1.2.3".parse().unwrap()))
            .collect();
        assert!(held.iter().all(Option::is_some));
        assert!(addresses.open.lock().unwrap().is_empty());
    }

    #[test]
    fn the_refusal_is_as_long_as_it_says() {
        let text = std::str::from_utf8(REFUSAL).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(
            head.contains(&format!("content-length: {}", body.len())),
            "{}",
            body.len()
        );
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["code"], "too_many_connections");
    }
}
