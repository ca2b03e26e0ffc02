//! Accepting a run and publishing its job.

use std::sync::Arc;

use arc_swap::ArcSwap;
use baton_metering::{Metering, Prices, ToolSizes};
use baton_nats::{Bus, JobHeaders, PublishError};
use baton_protocol::agent::{InstructionValues, Variable, render, variables};
use baton_protocol::{Lane, Price, RawFields, RunId, RunSpec, TenantId, ThreadId, UserId};
use baton_routing::Routes;
use baton_store::{
    Accept, AcceptError, Answers, CancelRequest, IdempotencyKey, NewRun, QueueLimits, RunRecord,
    Store, TurnWish,
};
use chrono::{DateTime, Utc};
use serde_json::value::RawValue;

use crate::agent::BuiltInAgent;
use crate::agents::Agents;
use crate::error::{Invalid, SubmitError};
use crate::grant::Grant;
use crate::passed_on::{Confined, ExtraFields};
use crate::request::SubmitRequest;
use crate::resolve::{resolve, resolve_given_calls};

/// The limits of the queues.
pub type Policy = QueueLimits;

/// The admission of runs, the same for every door. Cheap to clone.
#[derive(Clone)]
pub struct Admission {
    store: Store,
    bus: Bus,
    agents: Agents,
    pub(crate) rules: Arc<ArcSwap<Rules>>,
}

/// The configured rules for accepting runs.
#[derive(Clone)]
pub struct Rules {
    /// The agent of tenants without a default agent of their own.
    pub built_in: BuiltInAgent,
    /// The names of all server-side tools.
    pub tool_names: Vec<String>,
    /// The limits of the queues.
    pub policy: Policy,
    /// Prices by model.
    pub prices: Prices,
    /// The assumptions for a first turn's reservation.
    pub metering: Metering,
    /// The sizes of the server's tools.
    pub tools: ToolSizes,
    /// The fields that are passed on besides the published ones.
    pub extra_fields: ExtraFields,
    /// The routes of models to upstreams.
    pub routes: Routes,
}

impl Rules {
    /// Returns the highest price of a turn of this model, whichever upstream answers it.
    fn price(&self, model: &str) -> Option<Price> {
        let targets = self.routes.targets(model);
        let models = targets.iter().map(|target| &*target.model);
        self.prices.dearest(model, models)
    }
}

/// The sender of a request for a run.
pub struct Sender<'a> {
    /// The tenant of the run.
    pub tenant: TenantId,
    /// The rights of the credential.
    pub grant: &'a Grant,
    /// The actor that submits the run, as the audit log names actors.
    pub actor: String,
    /// The person who asks, if it is one who signed in.
    pub user: Option<UserId>,
}

/// A request for a run, with the door's knowledge of it.
pub struct Submission {
    /// The run's id if the sender chose it; `idempotency` then identifies the request that it
    /// belongs to.
    pub run: Option<RunId>,
    /// The request.
    pub request: SubmitRequest,
    /// The sender's idempotency key, with the fingerprint of the request.
    pub idempotency: Option<IdempotencyKey>,
    /// The effect of the client's leaving.
    pub on_close: OnClose,
    /// The id of the request and the trace context, which the run keeps.
    pub headers: JobHeaders,
}

/// The effect of a client's leaving.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnClose {
    /// None: the run continues.
    LeaveRunning,
    /// Cancels the run.
    Cancel,
    /// Cancels the run unless somebody attaches to it within the grace period.
    CancelUnlessBack,
}

/// An accepted run, with everything that an answer needs.
#[derive(Debug, Clone)]
pub enum Accepted {
    /// Its row has just been committed; its job is still to be published.
    Created(Box<CreatedRun>),
    /// An earlier request with the idempotency key created it: the run as the accepting transaction
    /// saw it.
    Replay(Box<RunRecord>),
    /// The request joined this run of its thread as a message.
    Steered(Box<RunRecord>),
}

impl Accepted {
    /// Returns the run: the proposed one, or the earlier one of the idempotency key.
    pub fn run(&self) -> RunId {
        match self {
            Self::Created(created) => created.id,
            Self::Replay(run) | Self::Steered(run) => run.id,
        }
    }
}

/// A run as it was committed.
#[derive(Debug, Clone)]
pub struct CreatedRun {
    /// The run.
    pub id: RunId,
    /// The thread.
    pub thread_id: Option<ThreadId>,
    /// The queue.
    pub lane: Lane,
    /// The specification.
    pub spec: RunSpec,
    /// The client's metadata.
    pub metadata: Option<Box<RawValue>>,
    /// The actor that submitted it.
    pub created_by: String,
    /// The time of the commit, by the ledger's clock.
    pub created_at: DateTime<Utc>,
    /// The runs of its thread that were cancelled with it; their holders are still to be asked.
    pub cancelled: Vec<(RunId, CancelRequest)>,
    /// The model to ask for a title of its thread, if that wants one.
    pub title_model: Option<String>,
}

/// The outcome of publishing the job. The run is accepted in each case, and the scheduler publishes
/// a lost job again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublishOutcome {
    /// The broker stored it.
    Stored,
    /// It is unknown whether the broker stored it.
    Unknown,
    /// The broker did not store it.
    Failed,
    /// There was no job to publish.
    NotNeeded,
}

impl PublishOutcome {
    /// Every outcome.
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
    /// Makes an admission.
    pub fn new(store: Store, bus: Bus, rules: Rules) -> Self {
        Self {
            agents: Agents::new(store.clone()),
            store,
            bus,
            rules: Arc::new(ArcSwap::from_pointee(rules)),
        }
    }

    /// Returns the names of all server-side tools.
    pub fn tool_names(&self) -> Vec<String> {
        self.rules.load().tool_names.clone()
    }

    /// Reads an agent anew for the next request, because it has changed.
    pub async fn forget_agent(&self, tenant: TenantId, name: &str) {
        self.agents.forget(tenant, name).await;
    }

    /// Reads all agents anew for the next requests, because those of files have changed.
    pub fn forget_agents(&self) {
        self.agents.forget_all();
    }

    /// Replaces the variables of instructions. The result is kept with the run, so that every turn
    /// of every attempt begins with the same bytes.
    async fn instructions(
        &self,
        instructions: &str,
        metadata: Option<&RawFields>,
        user: Option<UserId>,
        now: DateTime<Utc>,
    ) -> Result<String, SubmitError> {
        let invalid = |error: &dyn std::error::Error| {
            Invalid::field("invalid_agent", "agent", error.to_string())
        };
        let used = variables(instructions).map_err(|error| invalid(&error))?;
        let user = match user.filter(|_| used.contains(&Variable::UserName)) {
            Some(user) => self.store.system().user(user).await?,
            None => None,
        };
        let user_name = user.and_then(|user| user.name);
        let values = InstructionValues {
            date: &now.format("%Y-%m-%d").to_string(),
            user_name: user_name.as_deref().unwrap_or_default(),
            metadata,
        };
        render(instructions, values).map_err(|error| invalid(&error).into())
    }

    /// Accepts later runs by these rules.
    pub fn replace_rules(&self, rules: Rules) {
        self.rules.store(Arc::new(rules));
    }

    /// Returns the most that the run's first turn may consume, if its key has such limits.
    pub(crate) fn metered(
        rules: &Rules,
        grant: &Grant,
        spec: &RunSpec,
    ) -> Result<Option<TurnWish>, SubmitError> {
        let limits = &grant.limits;
        if grant.api_key.is_none() || !limits.meter() {
            return Ok(None);
        }
        // Given calls use no tokens.
        if !limits.have_budget() || !spec.calls.is_empty() {
            return Ok(Some(TurnWish::default()));
        }
        let price = rules.price(&spec.model);
        let price = price.as_ref();
        if price.is_none() && limits.monthly_cost_micros.is_some() {
            return Err(SubmitError::PriceUnknown(spec.model.clone()));
        }
        let wish = rules.metering.first_turn(spec, &rules.tools, price);
        Ok(Some(wish))
    }

    /// Resolves the request and commits the run. The caller must publish afterwards in any case:
    /// [`Admission::publish`]. `run` is the id of the run if it is new; the door generates it, so that it
    /// can follow the run's events before the job is published.
    pub async fn accept(
        &self,
        sender: Sender<'_>,
        submission: Submission,
        run: RunId,
        now: DateTime<Utc>,
    ) -> Result<Accepted, SubmitError> {
        let Sender {
            tenant,
            grant,
            actor,
            user,
        } = sender;
        let mut request = submission.request;
        let lane = request.lane;
        let (thread_id, on_busy) = request.thread.unzip();
        let answers = request.answers.take();
        let metadata = request.metadata.take();
        let rules = self.rules.load_full();
        let mut spec = if request.calls.is_empty() {
            let agents = self.agents.of_request(tenant, &request, &rules.built_in);
            let agents = agents.await?;
            for tool in &mut request.server_tools {
                let approval = std::mem::take(&mut tool.approval);
                tool.approval = rules.built_in.offer(&tool.name, approval).approval;
            }
            resolve(request, &agents, grant, &rules.routes)?
        } else {
            resolve_given_calls(request, &rules.tool_names, &rules.built_in, grant)?
        };
        spec.request_id = submission.headers.request_id;
        if let Some(template) = &spec.instructions {
            let instructions = self.instructions(template, metadata.as_ref(), user, now);
            let instructions = instructions.await?;
            spec.instructions = Some(instructions);
        }
        let metadata = metadata.map(RawFields::into_raw);
        let confined = Confined {
            models: grant.models.is_some(),
            budget: grant.limits.have_budget(),
        };
        rules.extra_fields.check(&spec, confined)?;
        if spec.limits.most.max_cost_nanos.is_some() && rules.price(&spec.model).is_none() {
            return Err(SubmitError::CostUnknown(spec.model));
        }
        let metered = Self::metered(&rules, grant, &spec)?;
        let new_run = NewRun {
            id: run,
            lane,
            spec: &spec,
            thread_id,
            on_busy: on_busy.unwrap_or_default(),
            titles: None,
            api_key_id: grant.api_key,
            created_by: Some(&actor),
            metered,
            metadata: metadata.as_deref(),
            cancel_on_disconnect: submission.on_close != OnClose::LeaveRunning,
            traceparent: submission.headers.traceparent.as_deref(),
            idempotency: submission.idempotency.as_ref(),
        };
        let committed = self.commit(tenant, &new_run, answers.as_ref(), &rules.policy);
        match committed.await? {
            Accept::Created {
                created_at,
                cancelled,
                title_model,
            } => {
                let created = CreatedRun {
                    id: run,
                    thread_id,
                    lane,
                    spec,
                    metadata,
                    created_by: actor,
                    created_at,
                    cancelled,
                    title_model,
                };
                Ok(Accepted::Created(Box::new(created)))
            }
            Accept::Replay(known) => Ok(Accepted::Replay(known)),
            Accept::Steered(run) => Ok(Accepted::Steered(run)),
            Accept::Refused(refusal) => Err(refusal.into()),
        }
    }

    /// Commits a run.
    pub(crate) async fn commit(
        &self,
        tenant: TenantId,
        run: &NewRun<'_>,
        answers: Option<&Answers>,
        policy: &Policy,
    ) -> Result<Accept, SubmitError> {
        // Checked before anything is written, because a run without a broker has no followers.
        if !self.bus.is_connected() {
            return Err(SubmitError::BrokerDown);
        }
        let accept = self
            .store
            .accept_run_with(tenant, run, answers, policy)
            .await;
        accept.map_err(|error| match error {
            AcceptError::Store(error) => SubmitError::Store(error),
            cause @ AcceptError::InDoubt { .. } => SubmitError::InDoubt { run: run.id, cause },
        })
    }

    /// Publishes the job of a run that [`Admission::accept`] has committed. The outcome is only for
    /// metrics.
    pub async fn publish(
        &self,
        tenant: TenantId,
        accepted: &Accepted,
        headers: &JobHeaders,
    ) -> PublishOutcome {
        match accepted {
            Accepted::Created(created) => {
                self.publish_job(tenant, created.lane, created.id, headers)
                    .await
            }
            Accepted::Replay(_) | Accepted::Steered(_) => PublishOutcome::NotNeeded,
        }
    }

    pub(crate) async fn publish_job(
        &self,
        tenant: TenantId,
        lane: Lane,
        run: RunId,
        headers: &JobHeaders,
    ) -> PublishOutcome {
        match self.bus.publish_or_leave(tenant, lane, run, headers).await {
            Ok(()) => PublishOutcome::Stored,
            Err(PublishError::Unknown) => PublishOutcome::Unknown,
            Err(_) => PublishOutcome::Failed,
        }
    }
}
