//! A first installation: `baton init`, the two servers started with the written files, `baton
//! migrate`.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Output;

use baton_devstack::test_support::test_nats_options;
use baton_devstack::{NatsConfig, NatsOptions, NatsServer, Postgres, PostgresOptions};
use baton_nats::accounts::{ROLES, inbox_prefix};
use baton_nats::{Auth, Bus, BusOptions};
use tokio::process::Command;

/// A password that the configuration accepts.
const OTHER: &str = "7d1f2b9c40e85a63d2b7";

pub(crate) type Environment = BTreeMap<String, String>;

pub(crate) async fn baton(folder: &Path, arguments: &[&str], environment: &Environment) -> Output {
    Command::new(env!("CARGO_BIN_EXE_baton"))
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .envs(environment)
        .output()
        .await
        .unwrap()
}

/// Returns the command's standard output; panics if it fails.
pub(crate) async fn succeeds(
    folder: &Path,
    arguments: &[&str],
    environment: &Environment,
) -> String {
    let output = baton(folder, arguments, environment).await;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// Returns the command's standard error; panics if it succeeds.
async fn fails(folder: &Path, arguments: &[&str], environment: &Environment) -> String {
    let output = baton(folder, arguments, environment).await;
    assert!(!output.status.success(), "{arguments:?} succeeded");
    String::from_utf8(output.stderr).unwrap()
}

/// Returns every file below a folder, with its text.
fn files(folder: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(folder).unwrap().display().to_string();
            found.insert(name, std::fs::read_to_string(&path).unwrap());
        }
    }
    found
}

/// Reads the variables of a file of lines `NAME=value`.
fn variables(text: &str) -> Environment {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// Starts the two servers, NATS with the configuration of the deployment in `folder`.
pub(crate) async fn servers(folder: &Path) -> (NatsServer, Postgres) {
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    // As the server would read it from its environment. The arguments choose the store here.
    let server = read("nats/nats.conf").replace("  store_dir: /data\n", "");
    let accounts = variables(&read("secrets/nats.env"))
        .iter()
        .fold(read("nats/accounts.conf"), |text, (name, value)| {
            text.replace(&format!("${name}"), value)
        });
    let readable = tempfile::tempdir().unwrap();
    std::fs::set_permissions(readable.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = readable.path().join("nats.conf");
    std::fs::write(&path, server).unwrap();
    std::fs::write(readable.path().join("accounts.conf"), accounts).unwrap();
    let nats = NatsServer::start(NatsOptions {
        config: NatsConfig::File(path),
        ..test_nats_options().await.unwrap()
    });
    let postgres = Postgres::start(PostgresOptions {
        durable: true,
        ..PostgresOptions::ephemeral()
    });
    tokio::try_join!(nats, postgres).unwrap()
}

/// Returns the environment of `baton migrate`, from the files that `init` wrote.
pub(crate) fn for_migrate(folder: &Path, nats: &NatsServer, postgres: &Postgres) -> Environment {
    let secret = |name: &str| std::fs::read_to_string(folder.join("secrets").join(name)).unwrap();
    let here = format!("127.0.0.1:{}", postgres.port());
    let url = |name: &str| secret(name).trim().replace("localhost:5432", &here);
    let password = folder.join("secrets/nats_migrate_password");
    [
        ("DATABASE_URL", url("database_url")),
        ("DATABASE_MIGRATE_URL", url("database_migrate_url")),
        ("NATS_URL", nats.url().to_owned()),
        ("BATON_NATS__USER", "migrate".to_owned()),
        ("BATON_NATS__PASSWORD_FILE", password.display().to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

#[tokio::test]
async fn what_init_writes_brings_up_a_deployment() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let said = succeeds(folder, &["init"], &Environment::new()).await;
    assert!(said.contains("secrets/nats_worker_password"), "{said}");
    let (nats, postgres) = servers(folder).await;
    let mut environment = for_migrate(folder, &nats, &postgres);

    let refused = fails(folder, &["migrate"], &environment).await;
    assert!(refused.contains("database"), "{refused}");
    let admin = postgres.superuser_url().to_owned();
    environment.insert("DATABASE_ADMIN_URL".to_owned(), admin);
    let made = succeeds(folder, &["migrate"], &environment).await;
    assert!(made.contains("the users baton_owner and baton"), "{made}");
    assert!(made.contains("up to date"), "{made}");
    // A repetition changes nothing, with or without the administrator.
    succeeds(folder, &["migrate"], &environment).await;
    environment.remove("DATABASE_ADMIN_URL");
    succeeds(folder, &["migrate"], &environment).await;
    let key = succeeds(folder, &["keys", "create", "--name", "first"], &environment).await;
    assert!(key.contains("bt_live_"), "{key}");

    for user in ROLES {
        let password = folder.join(format!("secrets/nats_{user}_password"));
        let password = std::fs::read_to_string(password).unwrap().trim().to_owned();
        let bus = Bus::connect(BusOptions {
            auth: Auth::UserPassword {
                user: user.to_owned(),
                password,
            },
            inbox_prefix: Some(inbox_prefix(user)),
            ..BusOptions::new(nats.url(), user)
        })
        .await;
        bus.unwrap_or_else(|error| panic!("{user}: {error}"))
            .close()
            .await;
    }
}

/// Row-level security must apply to the user of the servers. The check itself must not take rights
/// away from an administrator.
#[tokio::test]
async fn an_administrator_is_not_made_the_user_of_servers() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    succeeds(folder, &["init"], &Environment::new()).await;
    let (nats, postgres) = servers(folder).await;
    let mut environment = for_migrate(folder, &nats, &postgres);
    let admin = postgres.superuser_url().to_owned();
    environment.insert(
        "DATABASE_URL".to_owned(),
        postgres.url_for("baton", "postgres", OTHER),
    );

    let refused = fails(folder, &["migrate", "--bootstrap", &admin], &environment).await;
    assert!(refused.contains("postgres is a superuser"), "{refused}");
    let good = for_migrate(folder, &nats, &postgres);
    succeeds(folder, &["migrate", "--bootstrap", &admin], &good).await;
}

/// Compose ignores a variable that its files do not name, so a new issuer would not be used.
#[tokio::test]
async fn each_line_of_a_new_issuer_replaces_one_of_env() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    succeeds(folder, &["init"], &Environment::new()).await;
    let env = variables(&std::fs::read_to_string(folder.join(".env")).unwrap());

    let printed = succeeds(folder, &["nats-issuer"], &Environment::new()).await;

    let printed = variables(&printed);
    assert_eq!(printed.len(), 4);
    for (name, value) in printed {
        assert!(env.contains_key(&name), "{name}");
        assert_ne!(env[&name], value, "{name}");
    }
}

/// Guards the form of the written secrets: each role refuses weak or malformed ones.
#[tokio::test]
async fn the_written_configuration_passes_its_check() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    succeeds(folder, &["init"], &Environment::new()).await;
    let mut environment = Environment::from(
        [
            ("NATS_URL", "nats://localhost:4222"),
            ("LLM_BASE_URL", "http://localhost:4000/v1"),
            ("BATON_NATS__USER", "ingress"),
            ("BATON_NATS__SYSTEM_USER", "system"),
            ("BATON_NATS__CALLOUT_USER", "callout"),
            ("BATON_NATS__PROGRAMS_USER", "programs"),
            ("DATABASE_URL_FILE", "secrets/database_url"),
            ("DATABASE_MIGRATE_URL_FILE", "secrets/database_migrate_url"),
            ("JWT_SECRET_FILE", "secrets/jwt_secret"),
            ("BATON_NATS__PASSWORD_FILE", "secrets/nats_ingress_password"),
            (
                "BATON_NATS__SYSTEM_PASSWORD_FILE",
                "secrets/nats_system_password",
            ),
            (
                "BATON_NATS__CALLOUT_PASSWORD_FILE",
                "secrets/nats_callout_password",
            ),
            (
                "BATON_NATS__PROGRAMS_PASSWORD_FILE",
                "secrets/nats_programs_password",
            ),
            ("BATON_NATS__CALLOUT_SEED_FILE", "secrets/nats_callout_seed"),
            (
                "BATON_NATS__CALLOUT_XKEY_SEED_FILE",
                "secrets/nats_callout_xkey_seed",
            ),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned())),
    );
    succeeds(folder, &["config", "check"], &environment).await;
    environment.insert("JWT_SECRET_FILE".to_owned(), "secrets/none".to_owned());
    fails(folder, &["config", "check"], &environment).await;
}

/// Guards the check as the answer to "does a role take this?".
#[tokio::test]
async fn the_check_refuses_what_a_role_refuses_and_warns_of_names_that_are_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let only = |name: &str, value: &str| Environment::from([(name.to_owned(), value.to_owned())]);
    let receiver = only("OTEL_EXPORTER_OTLP_ENDPOINT", "nowhere");
    let refused = fails(folder, &["config", "check"], &receiver).await;
    assert!(refused.contains("OTEL_EXPORTER_OTLP_ENDPOINT"), "{refused}");
    let foreign = only("DB_HOST", "db.internal");
    let checked = baton(folder, &["config", "check"], &foreign).await;
    let warned = String::from_utf8(checked.stderr).unwrap();
    assert!(checked.status.success(), "{warned}");
    assert!(
        warned.contains("DB_HOST") && warned.contains("DATABASE_URL"),
        "{warned}"
    );
    assert!(!warned.contains("db.internal"), "{warned}");
}

#[tokio::test]
async fn init_replaces_nothing_and_draws_no_secret_twice() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::write(folder.join("baton.toml"), "# mine\n").unwrap();
    succeeds(folder, &["init"], &Environment::new()).await;
    let first = files(folder);
    assert_eq!(first["baton.toml"], "# mine\n");

    let again = succeeds(folder, &["init"], &Environment::new()).await;
    assert!(again.contains("nothing was changed"), "{again}");
    assert_eq!(files(folder), first);

    // The secrets of one deployment open nothing of another, and each opens only its own door.
    let other = tempfile::tempdir().unwrap();
    succeeds(other.path(), &["init"], &Environment::new()).await;
    let passwords = |files: &BTreeMap<String, String>| {
        let mut values: Vec<_> = files
            .iter()
            .filter(|(name, _)| name.starts_with("secrets/") && name.as_str() != "secrets/nats.env")
            .map(|(_, text)| text.trim().to_owned())
            .collect();
        values.sort();
        values
    };
    let (mut ours, theirs) = (passwords(&first), passwords(&files(other.path())));
    let count = ours.len();
    ours.dedup();
    assert_eq!(ours.len(), count);
    assert!(ours.iter().all(|secret| !theirs.contains(secret)));

    // Only the owner may read a file that holds a secret.
    let secret = |name: &&String| {
        name.as_str() == ".env" || name.starts_with("secrets/") || name.as_str() == "tls/server.key"
    };
    for name in first.keys().filter(secret) {
        let mode = std::fs::metadata(folder.join(name))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

/// New secrets would not match the old ones, so half a set is an error that names both halves.
#[tokio::test]
async fn init_does_not_complete_a_broken_set_of_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    succeeds(folder, &["init"], &Environment::new()).await;
    std::fs::remove_file(folder.join("secrets/jwt_secret")).unwrap();
    let before = files(folder);
    let refused = fails(folder, &["init"], &Environment::new()).await;
    assert!(
        refused.contains("Missing: secrets/jwt_secret."),
        "{refused}"
    );
    assert!(refused.contains(".env"), "{refused}");
    assert_eq!(files(folder), before);

    let refused = fails(
        folder,
        &["init", "new", "--host", "no name ü"],
        &Environment::new(),
    )
    .await;
    assert!(refused.contains("--host"), "{refused}");
    assert!(!folder.join("new").exists());
}
