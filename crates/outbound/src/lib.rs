//! Connections that a tenant or a model can influence.
//!
//! A [`Guard`] holds what the operator allows. A [`Client`] is the only way out through it: its inner
//! HTTP client is private, so that no request can skip the checks. There are two kinds of client.
//!
//! - [`Client::to_public`] is for URLs that somebody else than the operator chose. It connects to
//!   public addresses on listed ports, and to the networks that the operator allows.
//! - [`Client::to_origin`] is for a URL that the operator wrote. It reaches that origin alone, which
//!   may be in a private network, but not the metadata service of a cloud.
//!
//! Both check the addresses of a name when they connect, and connect to the checked addresses only: a
//! name that changes between two look-ups gains nothing. Neither follows a redirect or reads a proxy
//! variable.

mod address;
mod client;
mod guard;

pub use address::is_public;
pub use client::{Client, SendError, SetupError, client_builder, client_builder_of_operator};
pub use guard::{Guard, Policy, Refused};
