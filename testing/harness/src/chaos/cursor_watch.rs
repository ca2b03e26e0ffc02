//! Watches the ledger's cursors while things break: a trigger of its own notes each that goes back.
//! The next commit moves it forward again, so that nothing of it is left to see at the end.

use std::str::FromStr as _;

use anyhow::Context as _;
use baton_protocol::{EventId, RunId};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{Connection as _, raw_sql};
use uuid::Uuid;

/// Adds the trigger, in a schema that the product does not know.
const WATCH: &str = "
    CREATE SCHEMA chaos;
    CREATE TABLE chaos.cursors_gone_back (
        run uuid NOT NULL, before bigint NOT NULL, after bigint NOT NULL
    );
    CREATE FUNCTION chaos.note_cursor() RETURNS trigger
        LANGUAGE plpgsql SECURITY DEFINER SET search_path = chaos AS $$
    BEGIN
        INSERT INTO chaos.cursors_gone_back VALUES (OLD.id, OLD.last_event_id, NEW.last_event_id);
        RETURN NULL;
    END
    $$;
    CREATE TRIGGER chaos_cursors AFTER UPDATE ON public.runs FOR EACH ROW
        WHEN (NEW.last_event_id < OLD.last_event_id) EXECUTE FUNCTION chaos.note_cursor();
";

/// The watch over one database.
#[derive(Debug)]
pub struct CursorWatch {
    database: PgConnectOptions,
}

impl CursorWatch {
    /// Begins to watch. `superuser` is the URL of any database of the server.
    pub async fn begin(superuser: &str, database: &str) -> anyhow::Result<Self> {
        let database = PgConnectOptions::from_str(superuser)?.database(database);
        let mut connection = PgConnection::connect_with(&database).await?;
        raw_sql(WATCH)
            .execute(&mut connection)
            .await
            .context("the ledger's cursors cannot be watched")?;
        connection.close().await?;
        Ok(Self { database })
    }

    /// Returns each move back of a cursor: the run, and what happened.
    pub async fn gone_back(&self) -> anyhow::Result<Vec<(RunId, String)>> {
        let mut connection = PgConnection::connect_with(&self.database).await?;
        let moves: Vec<(Uuid, i64, i64)> =
            sqlx::query_as("SELECT run, before, after FROM chaos.cursors_gone_back")
                .fetch_all(&mut connection)
                .await?;
        connection.close().await?;
        let told = |(run, before, after): (Uuid, i64, i64)| {
            let id = |column: i64| EventId::from_u64(column.cast_unsigned());
            let found = format!("its cursor went back from {} to {}", id(before), id(after));
            (RunId::from_uuid(run), found)
        };
        Ok(moves.into_iter().map(told).collect())
    }
}
