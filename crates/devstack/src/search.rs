//! Where servers, and the tools that install them, may be.

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::account::is_root;

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
