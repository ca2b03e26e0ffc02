//! The ledger: every SQL statement of Baton, and nothing else. It does not know the broker.
//!
//! A [`Store`] hands out two things and no bare connection:
//!
//! - [`TenantTx`]: a transaction that acts for one tenant. Its connection runs as the role
//!   `baton_app`, to which row-level security shows only that tenant's rows, whatever a statement
//!   asks for. It accepts, reads and cancels runs.
//! - [`SystemTx`]: the operations of workers and schedulers across tenants, as the role
//!   `baton_system`. Each method is a transaction of its own.
//!
//! An ordinary chat is three commits of one round trip each: [`Store::accept_run`],
//! [`SystemTx::claim_run`], [`SystemTx::finish_run`]. A [`Fence`](baton_protocol::Fence) guards
//! every write of a run's holder: a write that touches no row is [`FenceError::Lost`]. All times
//! come from the database's clock.
//!
//! Rows that wait for the same statement share one commit: while a group of them is under way, those
//! that arrive meanwhile form the next. A group only answers the rows that it wrote.
//!
//! To add a statement: there is a file per table, and below it a file per transition. Begin the SQL
//! with a comment that names the statement (`-- runs.claim`), so that it can be found in
//! `pg_stat_statements`. Check the affected rows of a guarded write. Then run
//! `crates/store/prepare-queries.sh`. To change the schema, see `migrations/README.md`.

mod agents;
mod api_keys;
mod approval_grants;
mod approvals;
mod audit;
mod audit_parts;
mod bootstrap;
mod budget;
mod clock;
mod columns;
mod connect;
mod diagnosis;
mod errors;
mod feedback;
mod file_agents;
mod grouper;
mod groups;
mod idempotency_keys;
mod makers;
mod memberships;
mod messages;
pub mod metrics;
mod migrate;
mod one_time_tokens;
mod queue_depth;
mod reservations;
mod run_inputs;
mod runs;
mod sealing_keys;
mod sessions;
mod sign_in_throttle;
mod statement;
mod statement_pool;
mod steps;
mod stream_tickets;
mod system;
mod tenant_tx;
mod tenants;
mod thread_messages;
mod threads;
mod timeline;
mod usage_entries;
mod users;

pub use agents::{AgentCreation, AgentKey, AgentPage, AgentRecord, AgentVersion, AgentVersionPage};
pub use api_keys::{ApiKeyRecord, FreshKey, KeyLimits, KeyStanding, NewApiKey};
pub use approval_grants::RevokedGrant;
pub use approvals::{ApprovalPage, ApprovalRecord, Decided, RaiseBounds};
pub use audit::{ActorKind, AuditEntry, AuditFilter, AuditRecord, AuditResult};
pub use audit_parts::{DroppedPart, PruneError, prune_audit_log};
pub use bootstrap::{BootstrapError, Login, bootstrap};
pub use budget::{Budget, TurnGrant, TurnWish};
pub use connect::{ConnectError, Store, StoreOptions};
pub use diagnosis::{Diagnosis, diagnose};
pub use errors::{AcceptError, FenceError, StoreError};
pub use feedback::{FeedbackRecord, GivenFeedback, Judgement, NewFeedback};
pub use file_agents::{FileAgentRecord, ShadowedFileAgent};
pub use grouper::SLOW_GROUP;
pub use idempotency_keys::IdempotencyKey;
pub use makers::{EndedToken, Legacy, LegacyRule, Maker};
pub use memberships::{MemberRecord, MembershipChange, MembershipRecord};
pub use migrate::{MigrateError, MigrationName, migrate, pending};
pub use one_time_tokens::{InviteRecord, NewInvite};
pub use reservations::KeyUsage;
pub use run_inputs::{
    InputState, MOST_WAITING_INPUTS, NewInput, RunInput, RunInputPage, SendInput, WaitingInput,
    WithdrawInput,
};
pub use runs::EndedRun;
pub use runs::attempts::NewestAttempt;
pub use runs::cancel::CancelRequest;
pub use runs::claim::{Claim, ClaimOutcome, ClaimedRun};
pub use runs::decide::DecideOutcome;
pub use runs::export::ExportFilter;
pub use runs::finish::{CutTurn, FinalTurn, FinishCommit, Finished};
pub use runs::lease::Renewal;
pub use runs::new_run::{Accept, Answers, NewRun, OnBusy, QueueLimits, Refusal};
pub use runs::park::{NewApproval, ParkCommit, ParkOutcome, ParkedRun};
pub use runs::read::{Page, RunFilter, RunRecord};
pub use runs::rescue::{QueueStat, QueuedJob, RowState};
pub use runs::tasks::AwaitOutcome;
pub use sessions::{
    EndedCredential, NewSession, Refresh, Refreshed, SessionEnd, SessionRecord, SessionStanding,
    Watched,
};
pub use sign_in_throttle::TryRate;
pub use steps::{
    CallCommit, CallState, CompactionCommit, GivenCallsCommit, NewCall, OpenTask, PauseCommit,
    PausedCall, RecordedEvents, StepData, StepKind, StepRecord, StepState, TurnCommit, TurnTimes,
};
pub use stream_tickets::{StreamTicket, TicketMaker};
pub use system::{OneCommit, SystemTx};
pub use tenant_tx::TenantTx;
pub use tenants::TenantRecord;
pub use thread_messages::{Append, MessageOrder, ThreadMessage, ThreadMessagePage};
pub use threads::{
    EndedTitleRun, Purged, ThreadChange, ThreadDeletion, ThreadFilter, ThreadPage, ThreadRecord,
};
pub use timeline::{AttemptEnding, Timeline, TimelineData, TimelineEntry};
pub use usage_entries::{
    RunCost, UsageBearer, UsageFilter, UsageGroup, UsageGroups, UsagePage, UsageSum,
};
pub use users::{NewUser, Registered, UserRecord};
