//! How often somebody may ask: a limit that all ingresses keep together.
//!
//! ```text
//! request ──► guard: its address's limit ──► auth: who is it? their limit ──► handler
//!                        └──────── limiter: one log each, shared over NATS ────────┘
//! ```
//!
//! What is promised: in any 60 seconds (or 24 hours) at most L are admitted, by however many
//! ingresses; and none is refused while fewer than 0.98 L were admitted in the time before it. The
//! [`log`] keeps that for one writer, and a compare-and-set on the broker makes all ingresses one
//! writer. Why not what is more usual:
//!
//! - Windows that begin with the minute let 2 L through around their edge, and sliding averages of
//!   two such windows are right only on average.
//! - A token bucket (GCRA) that may be emptied at once and is refilled at L a minute admits nearly
//!   2 L in the minute that begins with emptying it; one that stays below L then has to refuse
//!   somebody who has asked for nothing yet.
//! - A shared counter adds without asking; see `baton_nats::Limited`'s module.
//! - Permits that ingresses take in advance are missing wherever they are not.
//!
//! The cost is a round trip for an admission, and none for a refusal: an older log of the same
//! writer has fewer admissions, so what it refuses the newest would refuse as well. Requests of one
//! caller that come while a round trip is under way share the next.
//!
//! Times are the ingresses' wall clocks, and nobody's goes back behind what another has written; the
//! windows are as exact as these clocks agree.
//!
//! When the broker does not answer, or refuses, every ingress goes on by itself, with the same limit
//! and from what it knows: N of them may then admit up to N·L. That is counted, and shown by a gauge
//! for as long as it lasts. What was admitted meanwhile is written down with the first decision that
//! reaches the broker again.

mod address;
mod guard;
mod limiter;
mod log;

pub(crate) use address::{ClientAddress, Proxies};
pub(crate) use guard::{limit_caller, limit_request_of, limit_requests};
pub(crate) use limiter::{Decision, PATIENCE, RateLimiter};
pub(crate) use log::{RateLimits, Standing};
