//! Jobs: Baton's messages on `jobs.<tenant>.<lane>`, and programs' submissions.

mod submit;

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::ids::RunId;

pub use submit::SubmitJob;

/// Which queue a run waits in. Interactive never waits behind background.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Lane {
    /// A client is waiting for the answer.
    #[default]
    Interactive,
    /// No client is waiting.
    Background,
}

impl Lane {
    /// Both lanes, the preferred one first.
    pub const ALL: [Self; 2] = [Self::Interactive, Self::Background];

    /// The lane's name in JSON, SQL and subjects.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Interactive => "interactive",
            Self::Background => "background",
        }
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Lane {
    type Err = UnknownLane;

    fn from_str(given: &str) -> Result<Self, UnknownLane> {
        Self::ALL
            .into_iter()
            .find(|lane| lane.as_str() == given)
            .ok_or_else(|| UnknownLane(given.chars().take(64).collect()))
    }
}

/// A lane that does not exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a lane: write `interactive` or `background`")]
pub struct UnknownLane(String);

/// A job of version 1, from Baton itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Job {
    /// A run. Its row holds everything else, because a message holds a mebibyte and a request may
    /// carry images.
    Run {
        /// The run to execute.
        run_id: RunId,
    },
}

/// The longest text of an error about a message, in bytes.
const LONGEST_REASON: usize = 300;

/// A reason for which bytes are not a job.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// Not JSON, or a field is missing or of the wrong type.
    #[error("not a job: {}", short(.0))]
    Malformed(#[source] serde_json::Error),
    /// A version that this build does not know.
    #[error("job version {0} is not supported: this server reads version 1")]
    UnsupportedVersion(u64),
    /// A submission, which an ingress should have taken.
    #[error(
        "a submission among the jobs: an ingress takes those, on `submit.<tenant>.<key>.<lane>`"
    )]
    Submission,
}

#[derive(Deserialize)]
struct Version {
    v: u64,
}

#[derive(Deserialize)]
struct KindOnly<'a> {
    #[serde(borrow)]
    kind: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    #[serde(rename = "v")]
    _v: u64,
    #[serde(rename = "kind")]
    _kind: Kind,
    run_id: RunId,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Run,
}

/// Returns serde's error text, shortened. It quotes its whole input, but a reason must fit into
/// answers, logs and headers.
pub(crate) fn short(error: &serde_json::Error) -> String {
    let mut text = error.to_string();
    if text.len() > LONGEST_REASON {
        text.truncate(text.floor_char_boundary(LONGEST_REASON));
        text.push('…');
    }
    text
}

impl Job {
    /// The version that this build writes.
    pub const VERSION: u64 = 1;

    /// Returns the run that the job names.
    pub const fn run_id(&self) -> RunId {
        match self {
            Self::Run { run_id } => *run_id,
        }
    }

    /// Returns the message body.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Run { run_id } => {
                format!(r#"{{"v":1,"kind":"run","run_id":"{run_id}"}}"#).into_bytes()
            }
        }
    }

    /// Reads a message body. Checks the version first, so that a newer job is refused for its
    /// version and not for a field it has gained.
    pub fn decode(body: &[u8]) -> Result<Self, JobError> {
        let version: Version = serde_json::from_slice(body).map_err(JobError::Malformed)?;
        if version.v != Self::VERSION {
            return Err(JobError::UnsupportedVersion(version.v));
        }
        let kind: KindOnly<'_> = serde_json::from_slice(body).map_err(JobError::Malformed)?;
        if kind.kind.as_deref() == Some(SubmitJob::KIND) {
            return Err(JobError::Submission);
        }
        let wire: Wire = serde_json::from_slice(body).map_err(JobError::Malformed)?;
        Ok(Self::Run {
            run_id: wire.run_id,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: &str = include_str!("golden/job.v1.run.json");

    #[test]
    fn released_jobs_stay_decodable_and_are_written_the_same() {
        let golden = RUN.trim_end();
        let job = Job::decode(golden.as_bytes()).unwrap();
        assert_eq!(String::from_utf8(job.encode()).unwrap(), golden);
    }

    #[test]
    fn a_newer_version_is_refused_for_its_version() {
        let newer = br#"{"v":2,"kind":"run","run_id":"x","colour":"blue"}"#;
        assert!(matches!(
            Job::decode(newer),
            Err(JobError::UnsupportedVersion(2))
        ));
    }

    #[test]
    fn garbage_is_refused_with_a_reason() {
        for (body, reason) in [
            ("", "EOF"),
            ("{}", "missing field `v`"),
            (r#"{"v":1,"kind":"run"}"#, "missing field `run_id`"),
            (
                r#"{"v":1,"kind":"walk","run_id":"x"}"#,
                "unknown variant `walk`",
            ),
            (
                r#"{"v":1,"kind":"run","run_id":"01890a5d-ac96-774b-bcce-b302099a8057","request":{}}"#,
                "unknown field `request`",
            ),
            (
                r#"{"v":1,"kind":"submit","run_id":"01890a5d-ac96-774b-bcce-b302099a8057"}"#,
                "an ingress takes those",
            ),
        ] {
            let error = Job::decode(body.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(reason), "{body}: {error}");
        }
    }
}
