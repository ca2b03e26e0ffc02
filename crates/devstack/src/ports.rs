//! Free ports on the loopback interface.

use std::net::{Ipv4Addr, TcpListener};

use crate::DevstackError;

/// Below the ports that Linux (32768…) and macOS (49152…) give to outgoing connections: a client
/// that keeps dialling a server which is down could otherwise be given the server's own port as its
/// local one, connect to itself, and keep the server from coming back.
const FROM: u16 = 20_000;
const TO: u16 = 32_767;

/// A port that was free a moment ago. Nothing reserves it: who uses it must be ready to lose the
/// race for it and ask again.
pub(crate) fn free_port() -> Result<u16, DevstackError> {
    const TRIES: usize = 200;

    (0..TRIES)
        .map(|_| rand::random_range(FROM..=TO))
        .find(|port| is_free(*port))
        .ok_or(DevstackError::NoPort { from: FROM, to: TO })
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}
