//! Looks for fitting binaries, and has them installed where there are none.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;

use crate::account::{Account, is_root};
use crate::install::{self, Package};
use crate::{DevstackError, Progress};

/// The oldest nats-server that does what is needed here.
pub const NATS_MINIMUM: Version = Version {
    major: 2,
    minor: 14,
};
/// The oldest PostgreSQL that does what is needed here.
pub const POSTGRES_MINIMUM: Version = Version {
    major: 15,
    minor: 0,
};

/// The two leading numbers of a version; ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The first number.
    pub major: u32,
    /// The second, 0 where there is none.
    pub minor: u32,
}

impl Version {
    /// Reads the first word of `text` that begins with a number, or with `v` and a number.
    fn find(text: &str) -> Option<Self> {
        text.split_whitespace().find_map(|word| {
            let mut numbers = word
                .trim_start_matches('v')
                .split(|c: char| !c.is_ascii_digit())
                .map(str::parse::<u32>);
            let major = numbers.next()?.ok()?;
            let minor = numbers.next().and_then(Result::ok).unwrap_or(0);
            Some(Self { major, minor })
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// A nats-server that fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatsBinary {
    /// The program.
    pub path: PathBuf,
    /// What it says it is.
    pub version: Version,
}

/// A PostgreSQL that fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresBinaries {
    /// The folder with `postgres` and `initdb`.
    pub bin: PathBuf,
    /// What it says it is.
    pub version: Version,
}

/// Where to look, and whether to install what is missing.
#[derive(Clone, Debug)]
pub struct Search {
    /// Folders to look in first, for servers and for the tools that install them, written as the
    /// environment variable `PATH` is.
    pub path: OsString,
    /// Folders with programs to look in next.
    pub usual: Vec<PathBuf>,
    /// Where installed servers are kept. As root, other accounts must be able to reach it.
    pub cache: PathBuf,
    /// Whether to install what was not found.
    pub install: bool,
}

impl Search {
    /// As the environment and the operating system suggest.
    pub fn from_environment() -> Self {
        Self {
            path: std::env::var_os("PATH").unwrap_or_default(),
            usual: usual_folders(),
            cache: cache_folder(),
            install: true,
        }
    }

    /// The program `name` on the path.
    pub(crate) fn tool(&self, name: &str) -> Option<PathBuf> {
        std::env::split_paths(&self.path)
            .map(|folder| folder.join(name))
            .find(|p| is_program(p))
    }

    /// All folders, the first to look in first.
    fn folders(&self, cached: &Package) -> Vec<PathBuf> {
        let mut folders: Vec<PathBuf> = std::env::split_paths(&self.path).collect();
        folders.extend(self.usual.iter().cloned());
        folders.push(cached.binaries_in(&self.cache));
        folders
    }

    /// Finds nats-server, installing it if that is allowed and needed.
    pub async fn nats(&self, progress: Progress) -> Result<NatsBinary, DevstackError> {
        let (path, version) = self.find(&install::NATS, progress).await?;
        Ok(NatsBinary { path, version })
    }

    /// Finds PostgreSQL, installing it if that is allowed and needed.
    pub async fn postgres(&self, progress: Progress) -> Result<PostgresBinaries, DevstackError> {
        let (program, version) = self.find(&install::POSTGRES, progress).await?;
        let bin = program.parent().unwrap_or(&program).to_owned();
        Ok(PostgresBinaries { bin, version })
    }

    async fn find(
        &self,
        package: &Package,
        progress: Progress,
    ) -> Result<(PathBuf, Version), DevstackError> {
        let account = Account::choose()?;
        let mut tried = Vec::new();
        let folders = self.folders(package);
        if let Some(found) = look_in(&folders, package, &account, &mut tried).await {
            return Ok(found);
        }
        tried.push(format!(
            "no fitting {} on PATH, in the usual places, or in {}",
            package.program,
            self.cache.display()
        ));
        if self.install {
            let _one_at_a_time = install::lock(self, progress).await?;
            // Whoever held the lock may have installed it.
            let cached = [package.binaries_in(&self.cache)];
            if let Some(found) = look_in(&cached, package, &account, &mut Vec::new()).await {
                return Ok(found);
            }
            for step in install::Step::ALL {
                let folders = match step.run(self, package, progress).await {
                    Ok(folders) => folders,
                    Err(why) => {
                        tried.push(why);
                        continue;
                    }
                };
                if let Some(found) = look_in(&folders, package, &account, &mut tried).await {
                    return Ok(found);
                }
            }
        } else {
            tried.push("installing was not allowed".to_owned());
        }
        Err(DevstackError::NotFound {
            server: package.title,
            tried,
            mend: package.mend(self),
        })
    }
}

impl NatsBinary {
    /// The program at `path`, if it is a nats-server that fits.
    pub async fn at(path: &Path) -> Result<Self, DevstackError> {
        match check(path, &install::NATS, &Account::choose()?).await {
            Ok((path, version)) => Ok(Self { path, version }),
            Err(why) => Err(DevstackError::NotFound {
                server: install::NATS.title,
                tried: vec![why],
                mend: format!("put a fitting one at {}", path.display()),
            }),
        }
    }
}

/// Finds nats-server as the environment suggests, installing it if needed.
pub async fn locate_nats(progress: Progress) -> Result<NatsBinary, DevstackError> {
    Search::from_environment().nats(progress).await
}

/// Finds PostgreSQL as the environment suggests, installing it if needed.
pub async fn locate_postgres(progress: Progress) -> Result<PostgresBinaries, DevstackError> {
    Search::from_environment().postgres(progress).await
}

async fn look_in(
    folders: &[PathBuf],
    package: &Package,
    account: &Account,
    tried: &mut Vec<String>,
) -> Option<(PathBuf, Version)> {
    for folder in folders {
        let program = folder.join(package.program);
        if folder.as_os_str().is_empty() || !is_program(&program) {
            continue;
        }
        match check(&program, package, account).await {
            Ok(found) => return Some(found),
            Err(why) if tried.contains(&why) => {}
            Err(why) => tried.push(why),
        }
    }
    None
}

/// The real path and the version of `program`, or why it does not fit.
async fn check(
    program: &Path,
    package: &Package,
    account: &Account,
) -> Result<(PathBuf, Version), String> {
    let shown = program.display();
    // Links are resolved, since other programs and shared files lie beside the real one.
    let real = program
        .canonicalize()
        .map_err(|error| format!("{shown}: {error}"))?;
    if !account.reaches(&real) {
        return Err(format!(
            "{shown}: the account that servers run as cannot reach it"
        ));
    }
    for other in package.beside {
        if !real
            .parent()
            .is_some_and(|folder| is_program(&folder.join(other)))
        {
            return Err(format!("{shown}: there is no {other} beside it"));
        }
    }
    let asked = Command::new(&real)
        .arg("--version")
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(Duration::from_secs(10), asked)
        .await
        .map_err(|_| format!("{shown}: --version did not end within 10 s"))?
        .map_err(|error| format!("{shown}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    match Version::find(&said) {
        Some(version) if version >= package.minimum => Ok((real, version)),
        Some(version) => Err(format!(
            "{shown}: is {version}, but at least {} is needed",
            package.minimum
        )),
        None => Err(format!("{shown}: its version cannot be read from {said:?}")),
    }
}

pub(crate) fn is_program(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// Folders where packages and installers put servers, the newest PostgreSQL first.
pub(crate) fn usual_folders() -> Vec<PathBuf> {
    const PLAIN: [&str; 7] = [
        "/usr/local/bin",
        "/usr/local/sbin",
        "/opt/homebrew/bin",
        "/usr/bin",
        "/usr/sbin",
        "/usr/local/pgsql/bin",
        "/Applications/Postgres.app/Contents/Versions/latest/bin",
    ];
    // One folder per major version, named by what stands before the number.
    const VERSIONED: [(&str, &str); 4] = [
        ("/usr/lib/postgresql", ""),
        ("/usr", "pgsql-"),
        ("/opt/homebrew/opt", "postgresql@"),
        ("/usr/local/opt", "postgresql@"),
    ];

    let mut versioned: Vec<(u32, PathBuf)> = VERSIONED
        .iter()
        .filter_map(|(parent, prefix)| Some((std::fs::read_dir(parent).ok()?, prefix)))
        .flat_map(|(entries, prefix)| {
            entries.flatten().filter_map(move |entry| {
                let name = entry.file_name();
                let number = name.to_str()?.strip_prefix(prefix)?.parse().ok()?;
                Some((number, entry.path().join("bin")))
            })
        })
        .collect();
    versioned.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
    let mut folders: Vec<PathBuf> = PLAIN.iter().map(PathBuf::from).collect();
    folders.extend(versioned.into_iter().map(|(_, folder)| folder));
    folders.extend(home().map(|home| home.join("go/bin")));
    folders
}

fn cache_folder() -> PathBuf {
    let set = |name| std::env::var_os(name).filter(|value: &OsString| !value.is_empty());
    if let Some(chosen) = set("BATON_CACHE_DIR") {
        return PathBuf::from(chosen);
    }
    if is_root() {
        return PathBuf::from("/var/cache/baton");
    }
    if let Some(caches) = set("XDG_CACHE_HOME") {
        return PathBuf::from(caches).join("baton");
    }
    let below = if cfg!(target_os = "macos") {
        "Library/Caches"
    } else {
        ".cache"
    };
    home()
        .unwrap_or_else(std::env::temp_dir)
        .join(below)
        .join("baton")
}

fn home() -> Option<PathBuf> {
    std::env::var_os("HOME")
        .filter(|home| home != OsStr::new(""))
        .map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(major: u32, minor: u32) -> Version {
        Version { major, minor }
    }

    #[test]
    fn versions_are_read_from_what_the_servers_say() {
        assert_eq!(Version::find("nats-server: v2.15.1"), Some(version(2, 15)));
        assert_eq!(
            Version::find("nats-server: v2.15.0-dev"),
            Some(version(2, 15))
        );
        assert_eq!(
            Version::find("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"),
            Some(version(15, 18))
        );
        assert_eq!(
            Version::find("postgres (PostgreSQL) 19devel"),
            Some(version(19, 0))
        );
        assert_eq!(Version::find("postgres (PostgreSQL)"), None);
    }
}
