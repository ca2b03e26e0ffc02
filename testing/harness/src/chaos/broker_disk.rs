//! The broker's disk: lost, or restored to an earlier copy.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use baton_devstack::NatsServer;

use super::plan::Disk;
use crate::checker::What;

/// The folder of the broker's streams, within its own folder.
const STREAMS: &str = "jetstream";

/// Changes a broker's disk while the broker is down.
#[derive(Debug)]
pub struct BrokerDisk {
    copy: PathBuf,
    /// The time of the copy, in milliseconds since 1970.
    copied_at: Option<u64>,
}

impl BrokerDisk {
    /// Copies go into this folder.
    pub fn new(copy: PathBuf) -> Self {
        let copied_at = None;
        Self { copy, copied_at }
    }

    /// Returns the possible change: without a copy, the disk is copied instead of restored.
    pub fn possible(&self, wanted: Disk) -> Disk {
        match wanted {
            Disk::Restored if self.copied_at.is_none() => Disk::Copied,
            other => other,
        }
    }

    /// Makes the change. Returns the time from which on stored messages are lost, if any are.
    pub fn change(&mut self, broker: &NatsServer, disk: Disk) -> anyhow::Result<Option<u64>> {
        let store = broker.store_dir();
        match disk {
            Disk::Kept => Ok(None),
            Disk::Copied => {
                remove(&self.copy)?;
                copy_folder(&store, &self.copy)?;
                self.copied_at = Some(What::now());
                Ok(None)
            }
            Disk::Restored => {
                remove(&store.join(STREAMS))?;
                copy_folder(&self.copy, &store)?;
                Ok(self.copied_at)
            }
            Disk::Wiped => {
                remove(&store.join(STREAMS))?;
                Ok(Some(0))
            }
        }
    }
}

impl Drop for BrokerDisk {
    fn drop(&mut self) {
        let _left = remove(&self.copy);
    }
}

fn remove(folder: &Path) -> anyhow::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("{} cannot be removed", folder.display()))
        }
        _ => Ok(()),
    }
}

/// Copies the content of `from` into `to` and keeps its owners, because the server may run as
/// another user.
pub(crate) fn copy_folder(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to)?;
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .arg(from.join("."))
        .arg(to)
        .status()?;
    if !copied.success() {
        bail!("{} cannot be copied: {copied}", from.display());
    }
    Ok(())
}
