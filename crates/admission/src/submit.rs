//! Accepting a run and publishing its job.

use std::sync::Arc;

use arc_swap::ArcSwap;
use baton_nats::{Bus, JobHeaders, PublishError};
use baton_protocol::{Job, Lane, RawFields, RunId, RunSpec, TenantId};
use baton_store::{
    Accept, AcceptError, IdempotencyKey, NewRun, QueueLimits, RunRecord, Store, TurnWish,
};
use chrono::{DateTime, Utc};
use serde_json::value::RawValue;

use crate::error::SubmitError;
use crate::metering::{Metering, ToolSizes};
use crate::passed_on::{Confined, ExtraFields};
use crate::prices::Prices;
use crate::request::SubmitRequest;
use crate::resolve::{AgentSource, Grant, Upstream, resolve};

/// How much may wait.
pub type Policy = QueueLimits;

/// The way in for runs, whichever door they come through. Cheap to clone.
#[derive(Clone)]
pub struct Admission {
    store: Store,
    bus: Bus,
    rules: Arc<ArcSwap<Rules>>,
}

/// The configured rules by which runs are accepted.
#[derive(Clone)]
pub struct Rules {
    /// The agents, and the tools that they may be given.
    pub agents: Arc<dyn AgentSource>,
    /// How much may wait.
    pub policy: Policy,
    /// Prices by model.
    pub prices: Prices,
    /// The sizes that a first turn is reserved by.
    pub metering: Metering,
    /// The sizes of the server's tools.
    pub tools: ToolSizes,
    /// The fields that travel besides the published ones.
    pub extra_fields: ExtraFields,
    /// The upstream's parts of the chat API.
    pub upstream: Upstream,
}

/// A request with everything that the door knows about its sender.
pub struct Submission<'a> {
    /// Whose run it becomes.
    pub tenant: TenantId,
    /// The id that the run gets if it is new. The door draws it, so that it can follow the run's
    /// events before the job is out.
    pub run: RunId,
    /// What the credential may use.
    pub grant: &'a Grant,
    /// What is asked for.
    pub request: SubmitRequest,
    /// The caller's key against doubles, with the fingerprint of the request.
    pub idempotency: Option<IdempotencyKey>,
    /// Whether the run ends when its client goes away.
    pub cancel_on_disconnect: bool,
}

/// A run that is in the ledger, with all that an answer says of it.
#[derive(Debug, Clone)]
pub struct Accepted {
    /// Whose it is.
    pub tenant: TenantId,
    /// The run: the one proposed, or the one that the idempotency key stands for.
    pub run: RunId,
    /// Whether it is new.
    pub acceptance: Acceptance,
}

/// Whether an accepted run is new.
#[derive(Debug, Clone)]
pub enum Acceptance {
    /// Its row has just been committed; its job is still to be published.
    Created(Box<CreatedRun>),
    /// The idempotency key had made it before: the run as the accepting transaction saw it.
    Replay(Box<RunRecord>),
}

/// A run as its row was committed.
#[derive(Debug, Clone)]
pub struct CreatedRun {
    /// The queue.
    pub lane: Lane,
    /// The work.
    pub spec: RunSpec,
    /// The client's own words about it.
    pub metadata: Option<Box<RawValue>>,
    /// When, by the ledger's clock.
    pub created_at: DateTime<Utc>,
}

/// What became of the job's publication. The run is accepted in each case; what is lost here is
/// published again by the scheduler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublishOutcome {
    /// The broker stored it.
    Stored,
    /// Nobody knows whether it did.
    Unknown,
    /// It did not.
    Failed,
    /// Nothing was to be published.
    NotNeeded,
}

impl PublishOutcome {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Stored, Self::Unknown, Self::Failed, Self::NotNeeded];

    /// The name in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Unknown => "unknown",
            Self::Failed => "failed",
            Self::NotNeeded => "not_needed",
        }
    }
}

impl Admission {
    /// A way in.
    pub fn new(store: Store, bus: Bus, rules: Rules) -> Self {
        Self {
            store,
            bus,
            rules: Arc::new(ArcSwap::from_pointee(rules)),
        }
    }

    /// Accepts later runs by these rules.
    pub fn replace_rules(&self, rules: Rules) {
        self.rules.store(Arc::new(rules));
    }

    /// What the run's first turn is to use up at most, if its key is limited in what it may use up.
    fn metered(
        rules: &Rules,
        grant: &Grant,
        spec: &RunSpec,
    ) -> Result<Option<TurnWish>, SubmitError> {
        let limits = &grant.limits;
        if grant.api_key.is_none() || !limits.meter() {
            return Ok(None);
        }
        if !limits.have_budget() {
            return Ok(Some(TurnWish::default()));
        }
        let price = rules.prices.of(&spec.model);
        if price.is_none() && limits.monthly_cost_micros.is_some() {
            return Err(SubmitError::PriceUnknown(spec.model.clone()));
        }
        let wish = rules.metering.first_turn(spec, &rules.tools, price);
        Ok(Some(wish))
    }

    /// Resolves the request and commits the run. The caller publishes afterwards, whatever else it
    /// does: [`Admission::publish`].
    pub async fn accept(&self, submission: Submission<'_>) -> Result<Accepted, SubmitError> {
        let Submission {
            tenant,
            run,
            grant,
            request,
            idempotency,
            cancel_on_disconnect,
        } = submission;
        let lane = request.lane;
        let mut request = request;
        let metadata = request.metadata.take().map(RawFields::into_raw);
        let rules = self.rules.load_full();
        let spec = resolve(request, &*rules.agents, grant, rules.upstream)?;
        let confined = Confined {
            models: grant.models.is_some(),
            budget: grant.limits.have_budget(),
        };
        rules.extra_fields.check(&spec, confined)?;
        let metered = Self::metered(&rules, grant, &spec)?;
        // Before anything is written: a run that nobody could be told of is better refused.
        if !self.bus.is_connected() {
            return Err(SubmitError::BrokerDown);
        }
        let new_run = NewRun {
            id: run,
            lane,
            spec: &spec,
            thread_id: None,
            api_key_id: grant.api_key,
            metered,
            metadata: metadata.as_deref(),
            cancel_on_disconnect,
            idempotency: idempotency.as_ref(),
        };
        let accept = self
            .store
            .accept_run(tenant, &new_run, &rules.policy)
            .await
            .map_err(|error| match error {
                AcceptError::Store(error) => SubmitError::Store(error),
                cause @ AcceptError::InDoubt { .. } => SubmitError::InDoubt { run, cause },
            })?;
        let accepted = |run, acceptance| Accepted {
            tenant,
            run,
            acceptance,
        };
        match accept {
            Accept::Created { created_at } => {
                let created = CreatedRun {
                    lane,
                    spec,
                    metadata,
                    created_at,
                };
                Ok(accepted(run, Acceptance::Created(Box::new(created))))
            }
            Accept::Replay(known) => Ok(accepted(known.id, Acceptance::Replay(known))),
            Accept::KeyReused => Err(SubmitError::KeyReused),
            Accept::IdTaken => Err(SubmitError::RunIdTaken),
            Accept::TenantQueueFull { limit } => Err(SubmitError::TenantQueueFull { limit }),
            Accept::SystemQueueFull { .. } => Err(SubmitError::SystemQueueFull),
            Accept::TooManyRuns { limit } => Err(SubmitError::ConcurrencyLimit { limit }),
            Accept::BudgetExceeded {
                budget,
                until,
                seconds,
            } => Err(SubmitError::BudgetExceeded {
                budget,
                until,
                seconds,
            }),
            Accept::BudgetReserved => Err(SubmitError::BudgetReserved),
        }
    }

    /// Publishes the job of a run that [`Admission::accept`] has committed. The outcome is worth a
    /// metric, and nothing else.
    pub async fn publish(&self, accepted: &Accepted, headers: &JobHeaders) -> PublishOutcome {
        let Acceptance::Created(created) = &accepted.acceptance else {
            return PublishOutcome::NotNeeded;
        };
        let job = Job::Run {
            run_id: accepted.run,
        };
        match self
            .bus
            .publish_job(accepted.tenant, created.lane, &job, headers)
            .await
        {
            Ok(_) => PublishOutcome::Stored,
            Err(error) => {
                tracing::warn!(
                    run.id = %accepted.run,
                    tenant.id = %accepted.tenant,
                    error = &error as &dyn std::error::Error,
                    "a job was not confirmed by the broker; the scheduler will see to it"
                );
                match error {
                    PublishError::Unknown => PublishOutcome::Unknown,
                    _ => PublishOutcome::Failed,
                }
            }
        }
    }
}
