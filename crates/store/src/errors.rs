//! What can go wrong, told apart by what the caller can do about it.

use std::io;

/// A statement failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be reached, is starting, stopping or overloaded. Trying again later may
    /// help. A write whose answer was lost may have been committed: every write of this crate can
    /// be repeated with the same arguments.
    #[error("the database is not available")]
    Unavailable(#[source] sqlx::Error),
    /// The database refused the statement. Trying again does not help.
    #[error("the database refused a statement")]
    Refused(#[source] sqlx::Error),
    /// The row holds something that this build cannot read.
    #[error("the column {column} holds `{value}`, which this version of Baton cannot read")]
    Unreadable {
        /// Table and column.
        column: &'static str,
        /// What it holds, cut to 64 characters.
        value: String,
    },
    /// A value cannot be written as JSON.
    #[error("a value cannot be written as JSON")]
    Encode(#[source] serde_json::Error),
}

impl StoreError {
    /// Whether trying again later may help.
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }

    /// Whether a statement that commits may have done so although it failed: its answer was lost.
    pub(crate) fn may_have_committed(&self) -> bool {
        match self {
            Self::Unavailable(error) => match error {
                sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::BeginFailed => {
                    false
                }
                sqlx::Error::Io(error) => {
                    let marked = error.get_ref().and_then(|error| error.downcast_ref());
                    marked.is_none_or(|NotConnected(_)| false)
                }
                // The server refused. One that ends a connection may have committed before.
                sqlx::Error::Database(refusal) => refusal.code().is_some_and(|code| {
                    code.starts_with("08") || (code.starts_with("57P") && code != "57P03")
                }),
                _ => true,
            },
            Self::Refused(_) | Self::Unreadable { .. } | Self::Encode(_) => false,
        }
    }

    /// Whether a value was refused that no column takes, such as text with a NUL character.
    pub fn is_bad_value(&self) -> bool {
        let Self::Refused(sqlx::Error::Database(refusal)) = self else {
            return false;
        };
        // Data exceptions: 22021 is a character that the encoding does not have.
        refusal.code().is_some_and(|code| code.starts_with("22"))
    }

    pub(crate) fn unreadable(column: &'static str, value: &str) -> Self {
        Self::Unreadable {
            column,
            value: value.chars().take(64).collect(),
        }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let transient = match &error {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::BeginFailed => true,
            sqlx::Error::Database(refusal) => refusal.code().is_some_and(|code| {
                // Connection exceptions, deadlock and serialisation, too little of something,
                // cancelled or shutting down, a server that has become a standby, a lock that was not
                // to be had in time, I/O errors.
                ["08", "40", "53", "57", "58"].contains(&&code[..2.min(code.len())])
                    || ["25006", "55P03"].contains(&code.as_ref())
            }),
            _ => false,
        };
        if transient {
            Self::Unavailable(error)
        } else {
            Self::Refused(error)
        }
    }
}

/// No connection could be made, so that nothing was sent on it.
#[derive(Debug, thiserror::Error)]
#[error("cannot connect: {0}")]
pub(crate) struct NotConnected(#[source] pub(crate) io::Error);

impl NotConnected {
    /// Marks the error of an attempt to connect.
    pub(crate) fn mark(error: sqlx::Error) -> sqlx::Error {
        match error {
            sqlx::Error::Io(error) => sqlx::Error::Io(io::Error::new(error.kind(), Self(error))),
            error => error,
        }
    }
}

/// A run could not be accepted, or nobody knows whether it was.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// Nothing was written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The answer to a commit was lost, and the database could not be asked for it since. The run may
    /// be in the ledger. The same submission repeated tells.
    #[error("whether the run was committed is unknown")]
    InDoubt {
        /// The newest failure, if there was one after that.
        source: Option<StoreError>,
    },
}

/// A guarded write failed.
#[derive(Debug, thiserror::Error)]
pub enum FenceError {
    /// The run is no longer held by this attempt: it was taken over, or it has ended. Nothing was
    /// written. Stop.
    #[error("the run is no longer held by this attempt")]
    Lost,
    /// The statement failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for FenceError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}
