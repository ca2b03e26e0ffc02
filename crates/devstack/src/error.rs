//! Errors, with the command that mends each if one is known.

use std::io;
use std::path::PathBuf;

/// A reason for which a server could not be found, installed, started or stopped.
#[derive(Debug, thiserror::Error)]
pub enum DevstackError {
    /// No fitting binary is on this machine and none could be installed.
    #[error(
        "{server} was not found and could not be installed\n{}\nTo mend it: {mend}",
        indented(tried)
    )]
    NotFound {
        /// The server, with the required version.
        server: &'static str,
        /// The places that were tried and the reason why each failed.
        tried: Vec<String>,
        /// The command that mends it.
        mend: String,
    },

    /// A server ended, or was not ready in time, after it was started.
    #[error("{server} did not start: {why}\nThe end of its log, {}:\n{}", log.display(), indented(tail))]
    StartFailed {
        /// The server.
        server: &'static str,
        /// The observation.
        why: String,
        /// Its log file.
        log: PathBuf,
        /// The last lines of that file.
        tail: Vec<String>,
    },

    /// Another process uses a data folder, or has been installing into the cache folder for long.
    #[error("the folder {} is in use by another process; stop that one or choose another folder", path.display())]
    DataInUse {
        /// The folder.
        path: PathBuf,
    },

    /// The data folder was made by another major version of PostgreSQL, which cannot be read.
    #[error("the data in {} was made by PostgreSQL {made_by}, but the one found is {found}; install PostgreSQL {made_by}, or start afresh with: rm -r {}", path.display(), path.display())]
    DataVersion {
        /// The data folder.
        path: PathBuf,
        /// The major version in its `PG_VERSION` file.
        made_by: String,
        /// The major version of the binaries that were found.
        found: u32,
    },

    /// A preparing command failed.
    #[error("{what} failed: {detail}")]
    Command {
        /// The command, in words.
        what: String,
        /// Its exit status and the end of its output.
        detail: String,
    },

    /// No port was free in the range.
    #[error("no free port was found on 127.0.0.1 between {from} and {to}")]
    NoPort {
        /// The lowest port tried.
        from: u16,
        /// The highest port tried.
        to: u16,
    },

    /// Neither `postgres` nor `nobody` exists, so no account can run the servers.
    #[error(
        "servers are not run as root, and this machine has neither an account `postgres` nor `nobody`; to mend it: useradd --system postgres"
    )]
    NoAccount,

    /// The operating system refused something.
    #[error("cannot {what}")]
    Io {
        /// The attempted action, in words.
        what: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl DevstackError {
    /// Wraps an I/O error with the attempted action, for `map_err`.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

fn indented(lines: &[String]) -> String {
    let lines: Vec<String> = lines.iter().map(|line| format!("  {line}")).collect();
    lines.join("\n")
}
