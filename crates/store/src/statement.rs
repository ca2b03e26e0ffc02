//! A statement with its name, and the time that its answer takes.

use std::time::Instant;

use futures_util::stream::TryStreamExt as _;
use sqlx::postgres::{PgArguments, PgConnection, PgQueryResult, PgRow, Postgres};
use sqlx::{Either, Error, Execute, Executor as _, SqlStr};

use crate::metrics;

/// A statement that is ready to be sent.
pub(crate) struct Statement {
    sql: SqlStr,
    arguments: Option<PgArguments>,
}

impl Statement {
    pub(crate) fn new<'q>(mut query: impl Execute<'q, Postgres>) -> Result<Self, Error> {
        let arguments = query.take_arguments().map_err(Error::Encode)?;
        Ok(Self {
            sql: query.sql(),
            arguments,
        })
    }

    /// Sends it and collects its rows.
    pub(crate) async fn fetch_all(
        self,
        connection: &mut PgConnection,
    ) -> Result<Vec<Either<PgQueryResult, PgRow>>, Error> {
        let _timer = Timer::start(name(self.sql.as_str()));
        let answer = connection.fetch_many((self.sql, self.arguments));
        answer.try_collect().await
    }

    /// Sends it and returns its first row.
    pub(crate) async fn fetch_optional(
        self,
        connection: &mut PgConnection,
    ) -> Result<Option<PgRow>, Error> {
        let _timer = Timer::start(name(self.sql.as_str()));
        connection.fetch_optional((self.sql, self.arguments)).await
    }
}

/// Records the time of a statement when it is dropped: after the answer, or when the caller gave up.
pub(crate) struct Timer {
    name: String,
    sent: Instant,
}

impl Timer {
    pub(crate) fn start(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            sent: Instant::now(),
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        metrics::statement(std::mem::take(&mut self.name), self.sent.elapsed());
    }
}

/// Returns the name in the comment that a statement begins with.
fn name(sql: &str) -> &str {
    sql.trim_start()
        .strip_prefix("--")
        .and_then(|comment| comment.lines().next())
        .map_or("unnamed", str::trim)
}

#[cfg(test)]
mod tests {
    use super::name;

    #[test]
    fn the_name_of_a_statement_is_in_its_first_line() {
        let cases = [
            (
                "\n            -- runs.claim\n            UPDATE runs",
                "runs.claim",
            ),
            (
                "-- diagnosis.now\nSELECT clock_timestamp()",
                "diagnosis.now",
            ),
            ("SELECT 1 -- runs.claim", "unnamed"),
        ];
        for (sql, expected) in cases {
            assert_eq!(name(sql), expected, "{sql}");
        }
    }
}
