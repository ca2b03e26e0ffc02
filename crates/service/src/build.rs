//! What was built: version, commit and time.

use chrono::{DateTime, SecondsFormat};
use serde::Serialize;

/// What `/version`, `baton version` and the metric `baton_build_info` say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BuildInfo {
    /// The release, as in `Cargo.toml`.
    pub version: &'static str,
    /// The commit, twelve hexadecimal digits; `dev` in a debug build, `unknown` where git could not tell.
    pub commit: &'static str,
    /// When it was built (or `SOURCE_DATE_EPOCH`), RFC 3339 UTC.
    pub built_at: String,
}

/// The build this code is part of.
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
