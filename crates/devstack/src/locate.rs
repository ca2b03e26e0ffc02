//! Looks for fitting binaries, and installs them if there are none.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;

use crate::account::Account;
use crate::package::{self, Package};
use crate::search::is_program;
use crate::{DevstackError, Progress, Search, Version, install};

/// A nats-server that fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatsBinary {
    /// The program.
    pub path: PathBuf,
    /// Its version, as it reports it.
    pub version: Version,
}

/// A PostgreSQL that fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresBinaries {
    /// The folder with `postgres` and `initdb`.
    pub bin: PathBuf,
    /// Its version, as it reports it.
    pub version: Version,
}

impl Search {
    /// Finds nats-server, installing it if that is allowed and needed.
    pub async fn nats(&self, progress: Progress) -> Result<NatsBinary, DevstackError> {
        let (path, version) = self.find(&package::NATS, progress).await?;
        Ok(NatsBinary { path, version })
    }

    /// Finds PostgreSQL, installing it if that is allowed and needed.
    pub async fn postgres(&self, progress: Progress) -> Result<PostgresBinaries, DevstackError> {
        let (program, version) = self.find(&package::POSTGRES, progress).await?;
        let bin = program.parent().unwrap_or(&program).to_owned();
        Ok(PostgresBinaries { bin, version })
    }

    /// Returns all folders, in the order of the search.
    fn folders(&self, cached: &Package) -> Vec<PathBuf> {
        let mut folders: Vec<PathBuf> = std::env::split_paths(&self.path).collect();
        folders.extend(self.usual.iter().cloned());
        folders.push(cached.binaries_in(&self.cache));
        folders
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
            // Another process may have installed it while this one waited for the lock.
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
    /// Returns the program at `path`, if it is a fitting nats-server.
    pub async fn at(path: &Path) -> Result<Self, DevstackError> {
        match check(path, &package::NATS, &Account::choose()?).await {
            Ok((path, version)) => Ok(Self { path, version }),
            Err(why) => Err(DevstackError::NotFound {
                server: package::NATS.title,
                tried: vec![why],
                mend: format!("put a fitting one at {}", path.display()),
            }),
        }
    }
}

/// Finds nats-server on the paths of the environment, installing it if needed.
pub async fn locate_nats(progress: Progress) -> Result<NatsBinary, DevstackError> {
    Search::from_environment().nats(progress).await
}

/// Finds PostgreSQL on the paths of the environment, installing it if needed.
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

/// Returns the real path and the version of `program`, or the reason why it does not fit.
async fn check(
    program: &Path,
    package: &Package,
    account: &Account,
) -> Result<(PathBuf, Version), String> {
    let shown = program.display();
    // Resolves links, because related programs and shared files are in the folder of the real one.
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
