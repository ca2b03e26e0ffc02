//! The account that servers run as, and the folders that it can reach.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use nix::unistd::{User, geteuid};

use crate::DevstackError;

/// The account that servers and initdb run as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Account {
    /// Ours, which is not root.
    Own,
    /// Another, unprivileged one, because we are root.
    Other {
        /// Its user id.
        uid: u32,
        /// Its group id.
        gid: u32,
    },
}

impl Account {
    /// Chooses `postgres`, else `nobody`, for root, and our own account otherwise.
    pub(crate) fn choose() -> Result<Self, DevstackError> {
        if !is_root() {
            return Ok(Self::Own);
        }
        ["postgres", "nobody"]
            .iter()
            .find_map(|name| User::from_name(name).ok().flatten())
            .map(|user| Self::Other {
                uid: user.uid.as_raw(),
                gid: user.gid.as_raw(),
            })
            .ok_or(DevstackError::NoAccount)
    }

    /// Lets `command` run as this account.
    pub(crate) fn apply(&self, command: &mut std::process::Command) {
        use std::os::unix::process::CommandExt;

        if let Self::Other { uid, gid } = self {
            // Also clears the supplementary groups, as long as we are root.
            command.uid(*uid).gid(*gid);
        }
    }

    /// Gives `path` to this account, with `mode` as its permissions.
    pub(crate) fn take(&self, path: &Path, mode: u32) -> Result<(), DevstackError> {
        let failed = |what: &str| DevstackError::io(format!("{what} {}", path.display()));
        if let Self::Other { uid, gid } = self {
            chown(path, Some(*uid), Some(*gid)).map_err(failed("change the owner of"))?;
        }
        fs::set_permissions(path, Permissions::from_mode(mode))
            .map_err(failed("change the permissions of"))
    }

    /// Returns whether this account may pass through every folder above `path`. Ignores its groups
    /// other than the first, and access lists.
    pub(crate) fn reaches(&self, path: &Path) -> bool {
        let Self::Other { uid, gid } = self else {
            return true;
        };
        path.ancestors()
            .skip(1)
            .filter(|folder| !folder.as_os_str().is_empty())
            .all(|folder| {
                fs::metadata(folder).is_ok_and(|found| {
                    let shift = match (found.uid() == *uid, found.gid() == *gid) {
                        (true, _) => 6,
                        (false, true) => 3,
                        (false, false) => 0,
                    };
                    found.mode() >> shift & 1 == 1
                })
            })
    }
}

/// Returns whether this process is root.
pub(crate) fn is_root() -> bool {
    geteuid().is_root()
}
