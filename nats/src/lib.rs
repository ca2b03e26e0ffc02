//! Baton's use of NATS: the streams of jobs, of events and of recent admissions, and the nudges
//! that need no stream.
//!
//! | module | what |
//! |--|--|
//! | [`subjects`] | all subjects; no other crate builds one |
//! | [`streams`], [`mod@provision`] | the definitions, and the code that creates them on a server |
//! | [`jobs`] | publish a job, pull jobs by free slots, settle them, quarantine the unreadable |
//! | [`events`] | append with a compare-and-set, read back, follow one run without gap or repeat |
//! | [`control`] | core NATS messages that only save time |
//! | [`accounts`] | the broker's users and the permissions of each |
//! | [`programs`] | connections with API keys, the subjects they reach, their messages and the answers |
//! | [`presence`] | the workers that are alive, as far as the bus can tell |
//!
//! Nothing here knows the ledger: the truth about a run is a row, and every message may be late,
//! repeated or lost.

pub mod accounts;
pub mod bus;
pub mod control;
pub mod events;
mod foreign;
pub mod jobs;
mod limited;
mod log_levels;
pub mod metrics;
mod names;
pub mod presence;
pub mod programs;
pub mod provision;
mod rate_logs;
mod revocations;
pub mod streams;
pub mod subjects;
mod subscription;
mod tool_questions;

pub use accounts::AccountsConf;
pub use bus::{Auth, Bus, BusError, BusOptions, Link, Tls};
pub use control::{AttachmentQuestion, AttachmentQuestions, Nudge, Nudges};
pub use events::attempts::LedgerAttempts;
pub use events::cursor::{Cursor, Verdict};
pub use events::follower::{
    EventFollower, FollowError, Followed, ResumeError, Subscribed, Unresumed,
};
pub use events::{AppendError, EventLines, EventsState, ReadError, StoredEvents, StreamSeq};
pub use jobs::backlog::Backlog;
pub use jobs::delivery::{AckError, BadJob, Delivery, InProgress};
pub use jobs::quarantine::{DeadLetter, KEPT_OF_A_LETTER};
pub use jobs::replay::{NotReplayed, Replayed};
pub use jobs::source::{JobSource, JobsError, Supply};
pub use jobs::stranded::{Stranded, StrandedJob, Stranding};
pub use jobs::{JobHeaders, PublishError};
pub use limited::Limited;
pub use log_levels::{LogLevelChanges, LogLevelRequest};
pub use presence::{Hellos, Presence, PresenceQuestion};
pub use programs::callout::{
    AnswerError, BadQuestion, CalloutBus, ConnectRequest, ConnectRequests, Program,
};
pub use programs::control::{ControlRequest, ControlRequests, Verb};
pub use programs::curve::{CurveError, CurveKey, SealError};
pub use programs::history::{HistoryPage, HistoryQuestion, HistoryQuestions};
pub use programs::intake::{
    Heard, Intake, IntakeEvent, IntakeLimits, IntakeOptions, IntakeTask, Submissions,
};
pub use programs::jwt::{Issuer, IssuerError};
pub use programs::kick::{Closed, KickError, SystemBus};
pub use programs::reach::Reach;
pub use programs::requests::{Answer, Refusal};
pub use programs::submissions::{Resubmissions, Submission, SubmissionAnswer};
pub use provision::{
    Change, Difference, Inspection, ProvisionError, inspect, provision, restore_missing,
};
pub use rate_logs::StoredRateLog;
pub use revocations::Revocations;
pub use streams::StreamOptions;
pub use tool_questions::{NoDescriptions, ToolQuestion, ToolQuestions};
