//! The vocabulary that Baton's parts share: ids, jobs, run states, events.
//!
//! Nothing here does I/O, reads a clock or draws randomness. Messages between processes (jobs,
//! events) are versioned, and `golden/` keeps one file of every released shape, which must stay
//! decodable for ever.
//!
//! To add an event, add a variant to [`event::EventData`], a golden file, and the frames that
//! `ingress` makes of it.

pub mod agent;
pub mod answer_order;
pub mod approval;
pub mod compaction;
pub mod event;
pub mod event_id;
pub mod fence;
pub mod ids;
pub mod input;
mod invalid;
pub mod job;
pub mod limits;
pub mod liveness;
pub mod log_level;
pub mod price;
pub mod program;
pub mod raw_fields;
pub mod role;
pub mod route;
pub mod run;
pub mod spec;
pub mod tool;
pub mod trace_context;
pub mod usage;

pub use agent::AgentDefinition;
pub use answer_order::{AnswerOrder, AnswerPlace};
pub use approval::{ApprovalReason, ApprovalScope, Decision};
pub use compaction::CompactionRule;
pub use event::{Event, EventData};
pub use event_id::{EventId, InvalidEventId};
pub use fence::{ClaimToken, Fence};
pub use ids::{
    AgentId, ApiKeyId, ApprovalId, AuditId, FeedbackId, InviteId, MessageId, RunId, SessionId,
    TenantId, ThreadId, UserId, WorkerId,
};
pub use input::{CallPause, InputRequest, RemoteTask, RequestedInput};
pub use invalid::Invalid;
pub use job::{Job, JobError, Lane, SubmitJob};
pub use limits::{InvalidLimit, OnLimit, ReachedLimit, RequestLimits, UseLimits, UsedUp};
pub use log_level::{LogLevelAnswer, LogLevelChange};
pub use price::{Charge, Nanos, Price};
pub use program::{
    BadMessage, CancelMessage, ControlMessage, DecideMessage, HistoryMessage, SteerMessage,
    SteerMode,
};
pub use raw_fields::{NotFields, RawField, RawFields};
pub use role::{Role, UnknownRole};
pub use route::{LeftUpstream, TurnRoute};
pub use run::{FinishReason, Outcome, RunError, RunStatus, UpstreamError};
pub use spec::{AgentRef, ApprovedCall, OfferedTool, RunLimits, RunSpec};
pub use tool::{
    CallFailure, Effect, GivenCall, ToolDescription, ToolSource, ToolsAnswer, ToolsQuestion,
};
pub use usage::Usage;
