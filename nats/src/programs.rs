//! Programs at the broker: who may connect with an API key, what they reach, and how their
//! connections are closed when the key is revoked or expires (`callout`, `reach`, `kick`); what they
//! say (`intake`, and a file for each kind), and how they are answered (`requests`).
//!
//! ```text
//! program ── CONNECT, the key as token ──► nats-server ── $SYS.REQ.USER.AUTH ──► one ingress of all
//!                                              ▲                                      │ looks it up
//!                                              └──── a JWT: the key's id, its own subjects ───────┘
//! ```
//!
//! The server calls this an auth callout. Both messages are JWTs in its own form: the question is
//! signed by the server, the answer by the issuer that its configuration names.
//!
//! The subjects that a program may publish to have its key in them, and no token of its own choice:
//! the server's permissions prove who published a message, and nothing in the message does.

pub(crate) mod callout;
pub(crate) mod control;
pub(crate) mod curve;
pub mod history;
pub mod intake;
pub(crate) mod jwt;
pub(crate) mod kick;
pub(crate) mod reach;
pub(crate) mod requests;
pub(crate) mod submissions;
