//! The folders of servers, and of the tools that install them.

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::account::is_root;

/// The folders to search, and whether to install missing servers.
#[derive(Clone, Debug)]
pub struct Search {
    /// Folders to search first, for servers and for the tools that install them, in the form of the
    /// environment variable `PATH`.
    pub path: OsString,
    /// Folders to search next, for programs only.
    pub usual: Vec<PathBuf>,
    /// The folder of installed servers. For root, other accounts must be able to reach it.
    pub cache: PathBuf,
    /// Whether to install missing servers.
    pub install: bool,
}

impl Search {
    /// Returns the search that the environment and the operating system suggest.
    pub fn from_environment() -> Self {
        Self {
            path: std::env::var_os("PATH").unwrap_or_default(),
            usual: usual_folders(),
            cache: cache_folder(),
            install: true,
        }
    }

    /// Returns the program `name` on the path.
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

/// Returns the folders into which packages and installers put servers, the newest PostgreSQL first.
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
    // One folder per major version, named by this prefix and the number.
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
