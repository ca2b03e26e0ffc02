//! Records the commit and the time of the build, for `/version`, `baton version` and
//! `baton_build_info`.
//!
//! The environment wins (`BATON_COMMIT`, `SOURCE_DATE_EPOCH`), because images are built without
//! `.git`. Otherwise it asks git, in release builds only: in a debug build the answer would either
//! be stale or make every commit recompile the workspace. Nothing here can fail a build.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-env-changed=BATON_COMMIT");
    println!("cargo:rerun-if-env-changed=SOURCE_DATE_EPOCH");
    let release = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    if release && let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        // A watched path that does not exist would make the script run on every build.
        if Path::new(&log).exists() {
            println!("cargo:rerun-if-changed={log}");
        }
    }
    let commit = variable("BATON_COMMIT")
        .or_else(|| {
            release
                .then(|| git(&["rev-parse", "--short=12", "HEAD"]))
                .flatten()
        })
        .unwrap_or_else(|| if release { "unknown" } else { "dev" }.to_owned());
    println!("cargo:rustc-env=BATON_BUILD_COMMIT={commit}");

    let epoch = variable("SOURCE_DATE_EPOCH")
        .filter(|seconds| seconds.parse::<i64>().is_ok())
        .unwrap_or_else(seconds_since_epoch);
    println!("cargo:rustc-env=BATON_BUILD_EPOCH={epoch}");
    println!("cargo:rerun-if-changed=build.rs");
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !text.trim().is_empty()).then(|| text.trim().to_owned())
}

#[expect(
    clippy::disallowed_methods,
    reason = "the time of the build is the machine's time"
)]
fn seconds_since_epoch() -> String {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or_else(|_| "0".to_owned(), |age| age.as_secs().to_string())
}
