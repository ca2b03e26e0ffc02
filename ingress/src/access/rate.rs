//! Rate limits that all ingresses keep together.
//!
//! ```text
//! request ──► guard: its address's limit ──► auth: who is it? their limit ──► handler
//!                        └──────── limiter: one log each, shared over NATS ────────┘
//! ```
//!
//! The promise: in any 60 seconds (or 24 hours) at most L requests are admitted, by however many
//! ingresses; and none is refused while fewer than 0.98 L were admitted in the time before it. The
//! [`log`] keeps that promise for one writer, and a compare-and-set on the broker makes all
//! ingresses one writer. The usual methods do not keep it:
//!
//! - Windows that begin with the minute let 2 L through around their edge, and sliding averages of
//!   two such windows are right only on average.
//! - A token bucket (GCRA) that may be emptied at once and is refilled at L a minute admits nearly
//!   2 L in the minute that begins with emptying it. A bucket that stays below L has to refuse a
//!   client that has sent nothing yet.
//! - A shared counter adds without checking; see `baton_nats::Limited`'s module.
//! - Permits that one ingress takes in advance are missing at all others.
//!
//! An admission costs a round trip, a refusal none: an older log of the same writer has fewer
//! admissions, so the newest log would refuse whatever the older one refuses. Requests of one
//! caller that arrive during a round trip share the next one.
//!
//! Times come from the ledger's clock, as each ingress knows it. No ingress uses a time before the
//! latest that another has written.
//!
//! If the broker does not answer, or refuses, every ingress decides alone, with the same limit and
//! from what it knows: N of them may then admit up to N·L. These decisions are counted, and a gauge
//! shows the state while it lasts. The first decision that reaches the broker again also writes
//! down the admissions made meanwhile.

mod address;
mod guard;
mod limiter;
mod log;

pub(crate) use address::{ClientAddress, Proxies};
pub(crate) use guard::{DefaultLimits, RateGate, limit_requests};
pub(crate) use limiter::{Decision, PATIENCE, RateLimiter};
pub(crate) use log::{RateLimits, Standing};
