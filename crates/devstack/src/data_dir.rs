//! A server's folder: its path, its permissions, its log, and its removal.
//!
//! ```text
//! <folder>/lock        held while a server, or the guardian that stops it, uses the folder
//!          server.log  the server's output, appended by each start
//!          data/       the server's own files
//! ```

use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::account::Account;
use crate::{DevstackError, Progress};

/// The place of a server's data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    /// This folder, which is created if it is missing and stays when the server stops. For root, a
    /// folder that the servers' account cannot reach is replaced by one below `/var/lib/baton`.
    Keep(PathBuf),
    /// A new temporary folder, which is removed with the server, however its owner ends.
    Ephemeral,
}

/// A server's folder, locked for it.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    ephemeral: bool,
    lock: File,
}

impl DataDir {
    /// Makes the folder for `server` if needed, gives it to `account` and locks it, waiting for a
    /// guardian that is still stopping an earlier server there.
    pub(crate) async fn open(
        data: &Data,
        server: &str,
        account: &Account,
        progress: Progress,
    ) -> Result<Self, DevstackError> {
        let asked = match data {
            Data::Keep(path) => std::path::absolute(path).map_err(DevstackError::io(format!(
                "make {} absolute",
                path.display()
            )))?,
            Data::Ephemeral => {
                let unique = hex::encode(rand::random::<[u8; 8]>());
                std::env::temp_dir().join(format!("baton-{server}-{unique}"))
            }
        };
        let path = if place_is_reachable(&asked, account) {
            asked
        } else {
            elsewhere(&asked)
        };
        make_folders(&path)?;
        account.take(&path, 0o700)?;
        let what = format!("waiting for the data folder {}", path.display());
        let lock = progress
            .during(&what, lock(&path.join("lock"), &path))
            .await?;
        Ok(Self {
            path,
            ephemeral: *data == Data::Ephemeral,
            lock,
        })
    }

    /// Returns the folder.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the folder of the server's own files.
    pub(crate) fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    /// Returns the server's log.
    pub(crate) fn log(&self) -> PathBuf {
        self.path.join("server.log")
    }

    /// Returns the folder, if it must be removed when its server has stopped.
    pub(crate) fn to_remove(&self) -> Option<&Path> {
        self.ephemeral.then_some(self.path.as_path())
    }

    /// Removes the folder, if it is ephemeral.
    pub(crate) async fn remove_if_ephemeral(&self) -> Result<(), DevstackError> {
        let Some(path) = self.to_remove() else {
            return Ok(());
        };
        match tokio::fs::remove_dir_all(path).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(DevstackError::io(
                format!("remove {}", path.display()),
            )(error)),
            _ => Ok(()),
        }
    }

    /// Returns another handle of the lock. The folder stays locked until the last one is closed,
    /// also in another process.
    pub(crate) fn share_lock(&self) -> Result<File, DevstackError> {
        self.lock
            .try_clone()
            .map_err(DevstackError::io("share the lock of a data folder"))
    }

    /// Opens the log for appending, and returns its length.
    pub(crate) fn open_log(&self) -> Result<(File, u64), DevstackError> {
        let failed = || DevstackError::io(format!("open {}", self.log().display()));
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log())
            .map_err(failed())?;
        let length = log.metadata().map_err(failed())?.len();
        Ok((log, length))
    }

    /// Returns the log after byte `from`; empty if the log cannot be read.
    pub(crate) fn logged_since(&self, from: u64) -> String {
        let mut text = Vec::new();
        let read = File::open(self.log()).and_then(|mut log| {
            log.seek(SeekFrom::Start(from))?;
            log.read_to_end(&mut text)
        });
        match read {
            Ok(_) => String::from_utf8_lossy(&text).into_owned(),
            Err(_) => String::new(),
        }
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        if self.ephemeral {
            // For a server that was killed and then dropped. If one still runs, its guardian
            // repeats this after it.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Takes the lock in the file `path`. Waits at most as long as a guardian may need to stop a
/// server. `used` is the folder that the error names.
pub(crate) async fn lock(path: &Path, used: &Path) -> Result<File, DevstackError> {
    lock_within(path, used, Duration::from_secs(20)).await
}

/// Takes the lock in the file `path` within `limit`.
pub(crate) async fn lock_within(
    path: &Path,
    used: &Path,
    limit: Duration,
) -> Result<File, DevstackError> {
    let failed = || DevstackError::io(format!("lock {}", path.display()));
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(failed())?;
    let deadline = Instant::now() + limit;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(TryLockError::WouldBlock) => {
                return Err(DevstackError::DataInUse {
                    path: used.to_owned(),
                });
            }
            Err(TryLockError::Error(error)) => return Err(failed()(error)),
        }
    }
}

/// Creates the folder `path` and those above it; the new ones are open to every account.
pub(crate) fn make_folders(path: &Path) -> Result<(), DevstackError> {
    let failed = || DevstackError::io(format!("make the folder {}", path.display()));
    let missing: Vec<&Path> = path
        .ancestors()
        .take_while(|folder| !folder.exists())
        .collect();
    for folder in missing.into_iter().rev() {
        match fs::create_dir(folder) {
            Ok(()) => {
                fs::set_permissions(folder, Permissions::from_mode(0o755)).map_err(failed())?;
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed()(error)),
        }
    }
    Ok(())
}

fn place_is_reachable(path: &Path, account: &Account) -> bool {
    let existing = path
        .ancestors()
        .skip(1)
        .find_map(|folder| folder.canonicalize().ok());
    existing.is_some_and(|folder| account.reaches(&folder.join("data")))
}

/// Returns the folder below `/var/lib/baton` that replaces an unreachable one.
fn elsewhere(asked: &Path) -> PathBuf {
    let hash = Sha256::digest(asked.as_os_str().as_encoded_bytes());
    Path::new("/var/lib/baton").join(hex::encode(&hash[..8]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOBODY: Account = Account::Other {
        uid: 65_534,
        gid: 65_534,
    };

    #[test]
    fn a_folder_below_a_closed_one_is_out_of_reach_of_another_account() {
        let closed = tempfile::tempdir().unwrap();
        fs::set_permissions(closed.path(), Permissions::from_mode(0o700)).unwrap();
        let inside = closed.path().join("not/yet/there");

        assert!(!place_is_reachable(&inside, &NOBODY));
        assert!(place_is_reachable(&inside, &Account::Own));

        fs::set_permissions(closed.path(), Permissions::from_mode(0o755)).unwrap();
        assert!(place_is_reachable(&inside, &NOBODY));
    }

    #[test]
    fn different_folders_out_of_reach_get_different_places() {
        let one = elsewhere(Path::new("/root/one"));
        assert_eq!(one, elsewhere(Path::new("/root/one")));
        assert_ne!(one, elsewhere(Path::new("/root/two")));
    }

    #[tokio::test]
    async fn a_folder_in_use_is_refused_and_free_again_when_the_last_handle_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("lock");
        let first = lock(&file, folder.path()).await.unwrap();
        let shared = first.try_clone().unwrap();
        drop(first);

        let refused = lock_within(&file, folder.path(), Duration::ZERO).await;
        assert!(
            matches!(refused, Err(DevstackError::DataInUse { .. })),
            "{refused:?}"
        );

        drop(shared);
        lock_within(&file, folder.path(), Duration::ZERO)
            .await
            .unwrap();
    }
}
