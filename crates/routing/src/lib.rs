//! Routes of model names to upstreams. No I/O.
//!
//! The ingress refuses a request that no upstream of its route can serve; a worker asks the upstreams
//! of the route in their order. Both read the same [`Routes`].

mod knows;
mod pattern;
mod routes;

pub use knows::{Knows, Needs};
pub use pattern::Pattern;
pub use routes::{Hop, Route, Routes, Target, Unroutable};
