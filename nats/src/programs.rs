//! Programs at the broker: their admission with an API key, the subjects they reach, and the
//! closing of their connections when the key is revoked or expires (`callout`, `reach`, `kick`);
//! their messages (`intake`, and a file for each kind), and the answers (`requests`).
//!
//! ```text
//! program ── CONNECT, the key as token ──► nats-server ── $SYS.REQ.USER.AUTH ──► one of the ingresses
//!                                              ▲                                      │ looks it up
//!                                              └──── a JWT: the key's id, its own subjects ───────┘
//! ```
//!
//! The server calls this an auth callout. Both messages are JWTs in the server's own form: the
//! server signs the question, and the issuer that its configuration names signs the answer.
//!
//! The subjects that a program may publish to contain its key and no token of its own choice. So
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
