//! The process shell of every Baton role: configuration, telemetry, a two-stage stop, the admin
//! port, the clock and the HTTP accept loop.
//!
//! Nothing here knows about runs. A role's `main` reads like this: [`Config::load`],
//! [`telemetry::install`], bind, [`admin::Admin::serve`], the role's own work under a [`Shutdown`],
//! and [`run_until_stopped`], which returns the exit code.
//!
//! To add a configuration section, add a struct in [`config`] with a documented default for each
//! key, a line in its list of sections, and its keys in `deployments/baton.example.toml` (a test
//! checks that).

pub mod accept;
pub mod admin;
pub mod background;
pub mod build;
pub mod certificates;
pub mod clock;
pub mod config;
pub mod lifecycle;
pub mod liveness;
pub mod metrics;
pub mod open_files;
pub mod problem;
pub mod readiness;
pub mod reload;
pub mod request_id;
pub mod telemetry;

mod activity;
mod process_metrics;
mod request_line;

pub use accept::{Limits, ServeReport, serve};
pub use background::Background;
pub use clock::{Clock, FixedClock, SharedClock, SystemClock, WrongClock};
pub use config::{Config, ConfigErrors, Secret, Sources};
pub use lifecycle::{Ended, Shutdown, StopSequence, run_until_stopped};
pub use liveness::Liveness;
pub use problem::Problem;
pub use readiness::Readiness;
pub use reload::{LiveConfig, Reloader};
pub use request_id::RequestId;
pub use request_line::RequestTrace;
