//! The errors of this crate, by what the caller can do about them.

use std::io;

/// A statement failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be reached, is starting, stopping or overloaded. Trying again later may
    /// help. If the answer to a write was lost, the write may have been committed; every write of
    /// this crate can be repeated with the same arguments.
    #[error("the database is not available")]
    Unavailable(#[source] sqlx::Error),
    /// The database refused the statement. Trying again does not help.
    #[error("the database refused a statement")]
    Refused(#[source] sqlx::Error),
    /// The row holds a value that this build cannot read.
    #[error("the column {column} holds `{value}`, which this version of Baton cannot read")]
    Unreadable {
        /// The table and the column.
        column: &'static str,
        /// The value, cut to 64 characters.
        value: String,
    },
    /// A value cannot be written as JSON.
    #[error("a value cannot be written as JSON")]
    Encode(#[source] serde_json::Error),
}

impl StoreError {
    /// Returns whether trying again later may help.
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }

    /// Returns whether a failed statement may have committed, because its answer was lost.
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
                // An error from the server means that nothing was committed, unless it ended the
                // connection: then the commit may have come first.
                sqlx::Error::Database(refusal) => refusal.code().is_some_and(|code| {
                    code.starts_with("08") || (code.starts_with("57P") && code != "57P03")
                }),
                _ => true,
            },
            Self::Refused(_) | Self::Unreadable { .. } | Self::Encode(_) => false,
        }
    }

    /// Returns whether the database refused a value that no column takes, such as text with a NUL.
    pub fn is_bad_value(&self) -> bool {
        let Self::Refused(sqlx::Error::Database(refusal)) = self else {
            return false;
        };
        // Class 22 is data exceptions; 22021 is a character that the encoding does not have.
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
                // Connection exceptions, deadlocks and serialisation failures, insufficient
                // resources, cancelled statements and shutdowns, a server that has become a
                // standby, a lock timeout, I/O errors.
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

impl From<io::Error> for StoreError {
    /// The connection failed.
    fn from(error: io::Error) -> Self {
        sqlx::Error::Io(error).into()
    }
}

/// The error of a failed attempt to connect: nothing was sent to the database.
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

/// A run could not be accepted, or it is unknown whether it was.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// Nothing was written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The answer to a commit was lost, and the database could not be asked since. The run may be
    /// in the ledger; repeating the same submission resolves the doubt.
    #[error("whether the run was committed is unknown")]
    InDoubt {
        /// The newest failure since then, if there was one.
        source: Option<StoreError>,
    },
}

/// The failure of a guarded write.
#[derive(Debug, thiserror::Error)]
pub enum FenceError {
    /// This attempt no longer holds the run: another attempt took it over, or the run has ended.
    /// Nothing was written. The caller must stop.
    #[error("the run is no longer held by this attempt")]
    Lost,
    /// A message waits for the run that it must take before it ends. Nothing was written.
    #[error("a message waits for the run")]
    InputsWait,
    /// The statement failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for FenceError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}
