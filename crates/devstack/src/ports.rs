//! Free ports on the loopback interface.

use std::net::{Ipv4Addr, TcpListener};

use crate::DevstackError;

/// The range is below the ports that Linux (32768…) and macOS (49152…) give to outgoing
/// connections. Otherwise a client that keeps dialling a stopped server could get the server's own
/// port as its local one, connect to itself, and block the server's return.
const FROM: u16 = 20_000;
const TO: u16 = 32_767;

/// Returns a port that was free a moment ago. Nothing reserves it: the caller must be ready to lose
/// the race for it and to ask again.
pub fn free_port() -> Result<u16, DevstackError> {
    const TRIES: usize = 200;

    (0..TRIES)
        .map(|_| rand::random_range(FROM..=TO))
        .find(|port| is_free(*port))
        .ok_or(DevstackError::NoPort { from: FROM, to: TO })
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}
