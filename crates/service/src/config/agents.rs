//! `[agents]`: files of agents, as their texts. The ingress reads them.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// `[agents]`: agents that the operator keeps in files.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AgentsConfig {
    /// A file of agents, or a folder, of which every file that ends in `.toml` is read. They are read again
    /// when they change. Default: none.
    pub path: Option<PathBuf>,
    #[serde(skip)]
    pub(crate) files: Vec<AgentFile>,
}

/// A file of agents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentFile {
    /// The path, for messages.
    pub path: PathBuf,
    /// The content.
    pub text: String,
}

impl AgentsConfig {
    /// Returns the files as they were when the configuration was loaded, in the order of their names.
    pub fn files(&self) -> &[AgentFile] {
        &self.files
    }

    /// Makes the section of a path that has these files.
    pub fn of_files(path: impl Into<PathBuf>, files: Vec<AgentFile>) -> Self {
        Self {
            path: Some(path.into()),
            files,
        }
    }

    /// Reads the files. Returns the problem and the correction if one cannot be read.
    pub(super) fn read_files(&mut self) -> Vec<(String, &'static str)> {
        let Some(path) = &self.path else {
            return Vec::new();
        };
        let correct =
            "name a file of agents, or a folder with such files, that this process can read";
        let found = match agent_files(path) {
            Ok(found) => found,
            Err(error) => {
                let problem = format!("{} cannot be read: {error}", path.display());
                return vec![(problem, correct)];
            }
        };
        if found.is_empty() {
            let problem = format!("{} has no file that ends in .toml", path.display());
            return vec![(problem, "leave `path` out if there are no agents")];
        }
        let mut problems = Vec::new();
        for path in found {
            match std::fs::read_to_string(&path) {
                Ok(text) => self.files.push(AgentFile { path, text }),
                Err(error) => {
                    let problem = format!("{} cannot be read: {error}", path.display());
                    problems.push((problem, correct));
                }
            }
        }
        problems
    }
}

/// Returns the files of agents at a path, in the order of their names.
///
/// # Errors
/// If the path is absent or cannot be listed.
pub(crate) fn agent_files(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    if !std::fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let file = entry?.path();
        // A hidden file is an editor's, or the old content of a mounted folder.
        let hidden = file
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && file.extension() == Some(OsStr::new("toml")) && file.is_file() {
            found.push(file);
        }
    }
    found.sort();
    Ok(found)
}
