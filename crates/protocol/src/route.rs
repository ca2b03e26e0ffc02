//! The way of a model turn to the upstream that answered it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The way of a model turn to its upstream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TurnRoute {
    /// The upstream that answered.
    pub upstream: String,
    /// The model's name there.
    pub model: String,
    /// The upstreams that were left before it, in order.
    pub left: Vec<LeftUpstream>,
}

/// An upstream that was left for another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LeftUpstream {
    /// Its name.
    pub upstream: String,
    /// The model's name there.
    pub model: String,
    /// The code of its error; `down` if it failed lately, `busy` if it had no room.
    pub reason: String,
}
