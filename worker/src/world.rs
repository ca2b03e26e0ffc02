//! The outside of a worker's runs: the ledger and the broker. The simulation has another outside, and
//! runs the same code in virtual time.

use std::time::Duration;

use baton_nats::{
    AckError, BadJob, Bus, Delivery as PulledJob, InProgress as PulledInProgress, JobHeaders, Link,
    PublishError,
};
use baton_protocol::{ClaimToken, EventId, Fence, Job, Lane, Nanos, RunId, TenantId, TurnRoute};
use baton_run_log::{EventLogs, RecordedRuns};
use baton_store::{
    AuditEntry, AwaitOutcome, CallCommit, Claim, ClaimOutcome, CompactionCommit, FenceError,
    FinishCommit, Finished, GivenCallsCommit, OpenTask, ParkCommit, ParkOutcome, PauseCommit,
    QueuedJob, Renewal, StepRecord, Store, StoreError, TurnCommit, TurnGrant, TurnWish,
};
use chrono::{DateTime, Utc};
use tokio::sync::watch;

/// A ledger and a broker.
pub trait World: Send + Sync + 'static {
    /// The ledger.
    type Ledger: Ledger;
    /// The broker.
    type Broker: Broker;
}

/// PostgreSQL and NATS.
#[derive(Debug)]
pub struct Servers;

impl World for Servers {
    type Ledger = Store;
    type Broker = Bus;
}

/// Declares the ledger, and implements it by the statements of the same names.
macro_rules! ledger {
    ($(fn $name:ident($($argument:ident: $of:ty),*) -> $answer:ty;)*) => {
        /// The statements that a worker's runs need: those of the same names of
        /// [`baton_store::SystemTx`].
        pub trait Ledger: RecordedRuns + 'static {
            /// Draws the token of a claim.
            fn new_token(&self) -> ClaimToken {
                ClaimToken::from_random(rand::random())
            }

            $(
                #[doc = concat!("See [`baton_store::SystemTx::", stringify!($name), "`].")]
                fn $name(&self, $($argument: $of),*) -> impl Future<Output = $answer> + Send;
            )*
        }

        impl Ledger for Store {
            $(
                async fn $name(&self, $($argument: $of),*) -> $answer {
                    self.system().$name($($argument),*).await
                }
            )*
        }
    };
}

ledger! {
    fn claim_run(claim: &Claim) -> Result<ClaimOutcome, StoreError>;
    fn renew_leases(
        fences: &[Fence],
        lease: Option<Duration>
    ) -> Result<Vec<Option<Renewal>>, StoreError>;
    fn hand_over(fence: &Fence, last_event: EventId) -> Result<(), FenceError>;
    fn begin_turn(fence: &Fence, step: u32, wish: &TurnWish) -> Result<TurnGrant, FenceError>;
    fn lower_turn(fence: &Fence, step: u32, tokens: u64, nanos: u64) -> Result<(), FenceError>;
    fn await_budget(
        fence: &Fence,
        wish: &TurnWish,
        last_event: EventId
    ) -> Result<bool, FenceError>;
    fn waiting_for(
        tenant: TenantId,
        run: RunId,
        most: u32
    ) -> Result<Vec<QueuedJob>, StoreError>;
    fn run_cost(
        tenant: TenantId,
        run: RunId,
        accepted_at: DateTime<Utc>
    ) -> Result<Nanos, StoreError>;
    fn granted_tools(tenant: TenantId, run: RunId) -> Result<Vec<String>, StoreError>;
    fn note_accepted(fence: &Fence, position: u32, event: EventId) -> Result<(), StoreError>;
    fn next_after(tenant: TenantId, ended: RunId) -> Result<Option<QueuedJob>, StoreError>;
    fn commit_turn(fence: &Fence, turn: &TurnCommit<'_>) -> Result<Vec<StepRecord>, FenceError>;
    fn commit_compaction(
        fence: &Fence,
        compaction: &CompactionCommit<'_>
    ) -> Result<(), FenceError>;
    fn begin_given_calls(
        fence: &Fence,
        given: &GivenCallsCommit<'_>
    ) -> Result<(), FenceError>;
    fn record_route(fence: &Fence, step: u32, route: &TurnRoute) -> Result<(), FenceError>;
    fn start_call(fence: &Fence, step: u32) -> Result<(), FenceError>;
    fn pause_call(fence: &Fence, paused: &PauseCommit<'_>) -> Result<(), FenceError>;
    fn commit_call(fence: &Fence, call: &CallCommit<'_>) -> Result<Vec<StepRecord>, FenceError>;
    fn finish_run(fence: &Fence, end: &FinishCommit<'_>) -> Result<Finished, FenceError>;
    fn park_run(fence: &Fence, questions: &ParkCommit<'_>) -> Result<ParkOutcome, FenceError>;
    fn await_tasks(fence: &Fence, last_event: EventId) -> Result<AwaitOutcome, FenceError>;
    fn open_tasks(tenant: TenantId, run: RunId) -> Result<Vec<OpenTask>, StoreError>;
    fn close_task(tenant: TenantId, run: RunId, step: u32) -> Result<(), StoreError>;
    fn record_audit(entry: &AuditEntry) -> Result<(), StoreError>;
}

/// The messages that a worker's runs need.
pub trait Broker: EventLogs {
    /// A pulled job.
    type Delivery: Delivery;

    /// Returns whether the broker answers.
    fn answers(&self) -> impl Future<Output = bool> + Send;

    /// Returns the history of the connection, which changes when the broker comes back.
    fn link(&self) -> watch::Receiver<Link>;

    /// Stores a job.
    fn publish_job(
        &self,
        tenant: TenantId,
        lane: Lane,
        job: &Job,
        headers: &JobHeaders,
    ) -> impl Future<Output = Result<u64, PublishError>> + Send;

    /// Keeps a message that is no job, for an operator to inspect.
    fn quarantine(
        &self,
        delivery: &Self::Delivery,
        reason: &str,
    ) -> impl Future<Output = Result<u64, PublishError>> + Send;

    /// Keeps the job of a run that was given up, for an operator to inspect.
    fn quarantine_run(
        &self,
        delivery: &Self::Delivery,
        run: RunId,
        reason: &str,
    ) -> impl Future<Output = Result<u64, PublishError>> + Send;
}

impl Broker for Bus {
    type Delivery = PulledJob;

    async fn answers(&self) -> bool {
        self.ping().await.is_ok()
    }

    fn link(&self) -> watch::Receiver<Link> {
        Self::link(self)
    }

    async fn publish_job(
        &self,
        tenant: TenantId,
        lane: Lane,
        job: &Job,
        headers: &JobHeaders,
    ) -> Result<u64, PublishError> {
        Self::publish_job(self, tenant, lane, job, headers).await
    }

    async fn quarantine(&self, delivery: &PulledJob, reason: &str) -> Result<u64, PublishError> {
        Self::quarantine(self, delivery, reason).await
    }

    async fn quarantine_run(
        &self,
        delivery: &PulledJob,
        run: RunId,
        reason: &str,
    ) -> Result<u64, PublishError> {
        Self::quarantine_run(self, delivery, run, reason).await
    }
}

/// A pulled job: its message, and the ways to settle it.
pub trait Delivery: Send + Sync + 'static {
    /// The handle that keeps the message in progress.
    type InProgress: InProgress;

    /// Returns the run's tenant.
    fn tenant(&self) -> TenantId;

    /// Returns the job, or the reason for which the message cannot be read as one.
    fn job(&self) -> Result<&Job, &BadJob>;

    /// Returns the message's sequence, the same in every delivery.
    fn stream_seq(&self) -> u64;

    /// Returns the job's headers.
    fn headers(&self) -> &JobHeaders;

    /// Returns a handle that keeps the message in progress.
    fn in_progress_handle(&self) -> Self::InProgress;

    /// Settles the job as done, without a confirmation.
    fn ack(&self) -> impl Future<Output = Result<(), AckError>> + Send;

    /// Gives the job back for another delivery, at once or after `delay`.
    fn nak(&self, delay: Option<Duration>) -> impl Future<Output = Result<(), AckError>> + Send;

    /// Gives the job back, and waits for the broker's answer.
    fn nak_confirmed(
        &self,
        delay: Option<Duration>,
    ) -> impl Future<Output = Result<(), AckError>> + Send;

    /// Ends all deliveries of the job.
    fn term(&self, reason: &str) -> impl Future<Output = Result<(), AckError>> + Send;
}

impl Delivery for PulledJob {
    type InProgress = PulledInProgress;

    fn tenant(&self) -> TenantId {
        self.tenant
    }

    fn job(&self) -> Result<&Job, &BadJob> {
        self.job.as_ref()
    }

    fn stream_seq(&self) -> u64 {
        self.stream_seq
    }

    fn headers(&self) -> &JobHeaders {
        &self.headers
    }

    fn in_progress_handle(&self) -> PulledInProgress {
        Self::in_progress_handle(self)
    }

    async fn ack(&self) -> Result<(), AckError> {
        Self::ack(self).await
    }

    async fn nak(&self, delay: Option<Duration>) -> Result<(), AckError> {
        Self::nak(self, delay).await
    }

    async fn nak_confirmed(&self, delay: Option<Duration>) -> Result<(), AckError> {
        Self::nak_confirmed(self, delay).await
    }

    async fn term(&self, reason: &str) -> Result<(), AckError> {
        Self::term(self, reason).await
    }
}

/// A message that is kept in progress.
pub trait InProgress: Send + Sync + 'static {
    /// Restarts the time after which the broker delivers the message again.
    fn in_progress(&self) -> impl Future<Output = Result<(), AckError>> + Send;
}

impl InProgress for PulledInProgress {
    async fn in_progress(&self) -> Result<(), AckError> {
        Self::in_progress(self).await
    }
}
