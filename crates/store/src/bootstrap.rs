//! Makes a database and its two users on behalf of an administrator, for development and for a
//! first installation (`baton migrate --bootstrap`).

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Connection};

/// The advisory lock for making users: two processes that made the same user at once would both
/// fail.
const BOOTSTRAP_LOCK: i64 = 0x6261_746f_6e00_0002;

/// A reason why the users or the database were not made.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// The database cannot be reached, or refused.
    #[error("the database is not available, or refused")]
    Database(#[from] sqlx::Error),
    /// Row-level security does not apply to the user of the servers.
    #[error(
        "{user} is a superuser or has BYPASSRLS, so that it would see the rows of every tenant: name \
         another user for the servers"
    )]
    SeesEverything {
        /// The user's name.
        user: String,
    },
}

/// A user to be made, with its password.
#[derive(Debug, Clone, Copy)]
pub struct Login<'a> {
    /// The name.
    pub user: &'a str,
    /// The password. It is set again if the user exists already.
    pub password: &'a str,
}

/// Makes `owner`, `app` and a database that `owner` owns, if they do not exist. `admin_url` leads
/// to any other database of the server, as a superuser or as a user with CREATEROLE and CREATEDB.
///
/// The owner may create roles, because the first migration makes the group roles.
pub async fn bootstrap(
    admin_url: &str,
    database: &str,
    owner: Login<'_>,
    app: Login<'_>,
) -> Result<(), BootstrapError> {
    let options: PgConnectOptions = admin_url.parse()?;
    let mut connection = PgConnection::connect_with(&options).await?;
    // Closing the connection releases the lock.
    sqlx::query("SELECT pg_advisory_lock($1)")
        .bind(BOOTSTRAP_LOCK)
        .execute(&mut connection)
        .await?;
    // A superuser is refused and not demoted, because it may be the only superuser of the server.
    let sees_everything: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1 AND (rolsuper OR rolbypassrls))",
    )
    .bind(app.user)
    .fetch_one(&mut connection)
    .await?;
    if sees_everything {
        let user = app.user.to_owned();
        return Err(BootstrapError::SeesEverything { user });
    }
    make_user(&mut connection, owner, "CREATEROLE").await?;
    make_user(&mut connection, app, "NOCREATEROLE").await?;
    let known: bool =
        sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
            .bind(database)
            .fetch_one(&mut connection)
            .await?;
    if !known {
        let superuser: bool =
            sqlx::query_scalar("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
                .fetch_one(&mut connection)
                .await?;
        let owner = quoted(owner.user, '"');
        if !superuser {
            // PostgreSQL lets only a member of a role make a database that the role owns.
            run(&mut connection, format!("GRANT {owner} TO CURRENT_USER")).await?;
        }
        let database = quoted(database, '"');
        run(
            &mut connection,
            format!("CREATE DATABASE {database} OWNER {owner}"),
        )
        .await?;
    }
    connection.close().await?;
    Ok(())
}

/// Makes a user, or sets the password of an existing one.
async fn make_user(
    connection: &mut PgConnection,
    login: Login<'_>,
    rights: &str,
) -> Result<(), sqlx::Error> {
    let known: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)")
        .bind(login.user)
        .fetch_one(&mut *connection)
        .await?;
    let verb = if known { "ALTER" } else { "CREATE" };
    let statement = format!(
        "{verb} ROLE {} LOGIN {rights} PASSWORD {}",
        quoted(login.user, '"'),
        quoted(login.password, '\'')
    );
    run(connection, statement).await
}

async fn run(connection: &mut PgConnection, statement: String) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(statement))
        .execute(connection)
        .await?;
    Ok(())
}

/// Quotes a name or a password, because these statements take no parameters.
fn quoted(text: &str, quote: char) -> String {
    let doubled = text.replace(quote, &format!("{quote}{quote}"));
    format!("{quote}{doubled}{quote}")
}
