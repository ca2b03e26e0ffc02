//! What can go wrong, told apart by what the caller can do about it.

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
                // cancelled or shutting down, a server that has become a standby, I/O errors.
                ["08", "40", "53", "57", "58"].contains(&&code[..2.min(code.len())])
                    || code == "25006"
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
