//! Mistakes in a configuration: the place, the problem and the correction.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// The origin of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The built-in default.
    Default,
    /// A file as a whole, at a line if known.
    File {
        /// The configuration file.
        path: PathBuf,
        /// The line, counted from 1.
        line: Option<usize>,
    },
    /// A key in a file, written `section.key`.
    Key {
        /// The configuration file.
        path: PathBuf,
        /// The key, with its section.
        key: String,
    },
    /// An environment variable.
    Variable(String),
    /// A file that an environment variable names.
    SecretFile {
        /// The variable, which ends in `_FILE`.
        variable: String,
        /// The file it names.
        path: PathBuf,
    },
    /// A missing setting.
    Absent {
        /// The environment variable that would set it.
        variable: &'static str,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("built-in default"),
            Self::File { path, line: None } => write!(f, "{}", path.display()),
            Self::File {
                path,
                line: Some(line),
            } => write!(f, "{}:{line}", path.display()),
            Self::Key { path, key } => write!(f, "{}, key `{key}`", path.display()),
            Self::Variable(name) => write!(f, "variable {name}"),
            Self::SecretFile { variable, path } => {
                write!(f, "variable {variable}, file {}", path.display())
            }
            Self::Absent { variable } => write!(f, "{variable}"),
        }
    }
}

/// The origin of each value that is not a default, by (section, key).
pub(super) type Origins = BTreeMap<(String, String), Origin>;

/// One thing to mend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The place.
    pub origin: Origin,
    /// The problem, without any secret value.
    pub message: String,
    /// The correction.
    pub instead: Option<String>,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.message)?;
        match &self.instead {
            Some(instead) => write!(f, "; {instead}"),
            None => Ok(()),
        }
    }
}

/// Every mistake of a configuration, one a line; never empty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors(Vec<Mistake>);

impl ConfigErrors {
    /// Returns the mistakes, in the order of the sources.
    pub fn mistakes(&self) -> &[Mistake] {
        &self.0
    }

    pub(super) fn unless_empty<T>(mistakes: Vec<Mistake>, value: T) -> Result<T, Self> {
        if mistakes.is_empty() {
            Ok(value)
        } else {
            Err(Self(mistakes))
        }
    }
}

impl From<Mistake> for ConfigErrors {
    fn from(mistake: Mistake) -> Self {
        Self(vec![mistake])
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.len();
        let noun = if count == 1 { "mistake" } else { "mistakes" };
        write!(f, "{count} {noun} in the configuration")?;
        for mistake in &self.0 {
            write!(f, "\n  {mistake}")?;
        }
        Ok(())
    }
}

/// Returns the nearest candidate, if one is near enough to be meant.
pub(super) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let allowed = (word.chars().count() / 3).clamp(1, 3);
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, candidate)| candidate)
}
