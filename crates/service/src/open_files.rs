//! The limit of open files, and the connections that fit within it.
//!
//! A process that has none left cannot be probed, and reaches neither its broker nor its database.
//! Therefore files are kept back for these, and public connections have the rest.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::config::HttpConfig;

/// Connections to the admin port.
pub(crate) const ADMIN: usize = 32;
/// Connections to the broker and the upstream, listeners, logs, pipes and what the runtime has.
const OWN: u64 = 48;

/// The limit of open files is too low.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TooFewFiles {
    /// The configured connections do not fit.
    #[error(
        "http.max_connections is {wanted}, and {kept} more files are kept for the admin port, NATS and \
         PostgreSQL, but this process may open {limit}: set http.max_connections to {fits} or less, or \
         raise the limit of open files (`ulimit -n`, LimitNOFILE=) to {needed} or more"
    )]
    Connections {
        /// The setting.
        wanted: usize,
        /// The reserve.
        kept: u64,
        /// The limit.
        limit: u64,
        /// The greatest value of the setting that fits.
        fits: u64,
        /// The lowest limit that suffices.
        needed: u64,
    },
    /// Not even the reserve fits.
    #[error(
        "this process may open {limit} files, and {kept} are kept for the admin port, NATS and \
         PostgreSQL: raise the limit of open files (`ulimit -n`, LimitNOFILE=), or lower \
         database.max_connections"
    )]
    Reserve {
        /// The reserve.
        kept: u64,
        /// The limit.
        limit: u64,
    },
}

/// Raises the soft limit of open files to the hard one, and returns the limit that holds now; `None`
/// if it cannot be read.
pub fn raise_limit() -> Option<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    if soft < hard
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        // Some systems have a hard limit that they do not grant.
        tracing::debug!(%error, soft, hard, "the limit of open files stays as it is");
    }
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    Some(soft)
}

/// Lowers the number of public connections to one that fits with `database` connections to
/// PostgreSQL, unless the number was configured.
///
/// # Errors
/// If the configured number does not fit into `limit`, or nothing does.
pub fn fit_connections(
    http: &mut HttpConfig,
    database: u32,
    limit: u64,
) -> Result<(), TooFewFiles> {
    let kept = u64::from(database) + ADMIN as u64 + OWN;
    let fits = limit.saturating_sub(kept);
    let wanted = http.connections();
    if fits == 0 {
        return Err(TooFewFiles::Reserve { kept, limit });
    }
    if wanted as u64 <= fits {
        return Ok(());
    }
    if http.max_connections.is_some() {
        return Err(TooFewFiles::Connections {
            wanted,
            kept,
            limit,
            fits,
            needed: kept.saturating_add(wanted as u64),
        });
    }
    tracing::info!(
        limit,
        connections = fits,
        "the limit of open files allows fewer connections than usual"
    );
    http.max_connections = usize::try_from(fits).ok();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_gives_way_and_a_setting_does_not() {
        let mut http = HttpConfig::default();
        fit_connections(&mut http, 20, 1_000_000).unwrap();
        assert_eq!(http.max_connections, None);
        fit_connections(&mut http, 20, 150).unwrap();
        assert_eq!(http.max_connections, Some(50));
        assert_eq!(http.connections_per_address(), 25);
        http.max_connections = Some(51);
        let refused = fit_connections(&mut http, 20, 150).unwrap_err().to_string();
        for part in ["max_connections is 51", "to 50 or less", "to 151 or more"] {
            assert!(refused.contains(part), "{refused}");
        }
        let refused = fit_connections(&mut http, 20, 100).unwrap_err();
        assert_eq!(
            refused,
            TooFewFiles::Reserve {
                kept: 100,
                limit: 100
            }
        );
    }

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let raised = raise_limit().unwrap();
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert_eq!(raised, hard);
    }
}
