//! The build: version, commit and time.

use chrono::{DateTime, SecondsFormat};
use serde::Serialize;

/// The content of `/version`, `baton version` and the metric `baton_build_info`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BuildInfo {
    /// The release, as in `Cargo.toml`.
    pub version: &'static str,
    /// The commit, twelve hexadecimal digits; `dev` in a debug build, `unknown` if git failed.
    pub commit: &'static str,
    /// The time of the build (or `SOURCE_DATE_EPOCH`), RFC 3339 UTC.
    pub built_at: String,
}

/// Returns the build of this code.
pub fn info() -> BuildInfo {
    let built_at = env!("BATON_BUILD_EPOCH")
        .parse()
        .ok()
        .and_then(|seconds| DateTime::from_timestamp(seconds, 0))
        .unwrap_or(DateTime::UNIX_EPOCH);
    BuildInfo {
        version: env!("CARGO_PKG_VERSION"),
        commit: env!("BATON_BUILD_COMMIT"),
        built_at: built_at.to_rfc3339_opts(SecondsFormat::Secs, true),
    }
}
