//! → `queued`: a run is accepted. Its row, its idempotency key and the check of the queue limits
//! are one commit. After this commit the run is never lost.

mod alone;
mod group;
mod row;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use baton_protocol::{RunId, TenantId, ThreadId};
use chrono::{DateTime, Utc};
use sqlx::PgExecutor;

pub(crate) use self::alone::accept_alone;
use self::alone::accept_keyed;
pub(crate) use self::group::accept_group;
pub(crate) use self::row::AcceptRow;
use crate::connect::Store;
use crate::errors::{AcceptError, StoreError};
use crate::grouper::Submitted;
use crate::idempotency_keys::IdempotencyKey;
use crate::runs::new_run::{Accept, Answers, NewRun, OnBusy, QueueLimits, Refusal};
use crate::tenant_tx::TenantTx;

/// The time spent on looking for a commit after its answer was lost.
const IN_DOUBT: Duration = Duration::from_secs(5);
const BETWEEN_TRIES: Duration = Duration::from_millis(100);

impl Store {
    /// Accepts a run within the limits, in a transaction of its own and one round trip, or several
    /// if the run is metered. When it returns [`Accept::Created`], the run is committed.
    ///
    /// If the answer to a try is lost, for instance on a connection that did not survive a restart
    /// of the server, the try is repeated: the run's id shows whether the first one was committed.
    ///
    /// Of several calls with one key the first wins; the others wait for its commit and then see
    /// [`Accept::Replay`].
    pub async fn accept_run(
        &self,
        tenant: TenantId,
        run: &NewRun<'_>,
        limits: &QueueLimits,
    ) -> Result<Accept, AcceptError> {
        self.accept_run_with(tenant, run, None, limits).await
    }

    /// As [`Store::accept_run`]; the run is accepted with the answers, or not at all.
    pub async fn accept_run_with(
        &self,
        tenant: TenantId,
        run: &NewRun<'_>,
        answers: Option<&Answers>,
        limits: &QueueLimits,
    ) -> Result<Accept, AcceptError> {
        let mut tries = 0;
        // The time since which a commit may have succeeded without an answer.
        let mut doubted_since = None;
        loop {
            tries += 1;
            let failed = match self.try_accept_run(tenant, run, answers, limits).await {
                Err(Failed::Before(error)) if is_known_run(&error) => {
                    return Ok(match (doubted_since, run.idempotency) {
                        // A run with a key is looked up by the key before its id is tried.
                        (Some(_), None) => self.created(tenant, run.id).await,
                        _ => Accept::Refused(Refusal::IdTaken),
                    });
                }
                // While in doubt, a refusal by the limits proves nothing: the limits may count the
                // run itself.
                Ok(answer) if doubted_since.is_none() || answer.is_of_accepted() => {
                    return Ok(match answer {
                        Accept::Replay(known) if doubted_since.is_some() && known.id == run.id => {
                            Accept::created(known.created_at)
                        }
                        answer => answer,
                    });
                }
                Ok(_) => None,
                Err(Failed::Before(error)) if error.is_transient() => Some(error),
                Err(Failed::Before(error)) => return Err(error.into()),
                Err(Failed::Perhaps(error)) => {
                    doubted_since.get_or_insert_with(Instant::now);
                    error
                }
            };
            let Some(since) = doubted_since else {
                match failed {
                    Some(error) if tries > 1 => return Err(error.into()),
                    _ => continue,
                }
            };
            match self.committed(tenant, run).await {
                Ok(Some(answer)) => return Ok(answer),
                Ok(None) | Err(_) if since.elapsed() >= IN_DOUBT => {
                    return Err(AcceptError::InDoubt { source: failed });
                }
                Ok(None) if failed.is_some() => {}
                Ok(None) | Err(_) => tokio::time::sleep(BETWEEN_TRIES).await,
            }
        }
    }

    /// Returns the answer for a run that an earlier try may have committed; `None` if no commit is
    /// visible so far.
    async fn committed(
        &self,
        tenant: TenantId,
        run: &NewRun<'_>,
    ) -> Result<Option<Accept>, StoreError> {
        let mut tx = self.tenant(tenant).await?;
        let found = match run.idempotency {
            None => tx.run(run.id).await?,
            Some(key) => match tx.repetition(key).await? {
                Some(Accept::Replay(known)) if known.id == run.id => Some(*known),
                answer => return Ok(answer),
            },
        };
        Ok(found.map(|record| Accept::created(record.created_at)))
    }

    /// Returns the answer for a run that is in the ledger. If its row cannot be read, the time is
    /// taken from its id, because the run is accepted all the same.
    async fn created(&self, tenant: TenantId, run: RunId) -> Accept {
        let read = async { self.tenant(tenant).await?.run(run).await };
        let created_at = match read.await {
            Ok(Some(record)) => record.created_at,
            Ok(None) | Err(_) => run
                .unix_millis()
                .and_then(|millis| DateTime::from_timestamp_millis(i64::try_from(millis).ok()?))
                .unwrap_or_default(),
        };
        Accept::created(created_at)
    }

    async fn try_accept_run(
        &self,
        tenant: TenantId,
        run: &NewRun<'_>,
        answers: Option<&Answers>,
        limits: &QueueLimits,
    ) -> Result<Accept, Failed> {
        let in_parts = run.metered.is_some() || run.thread_id.is_some() || run.titles.is_some();
        if in_parts || answers.is_some() {
            let mut tx = self.tenant(tenant).await?;
            let answer = match answers {
                Some(answers) => tx.accept_answering_run(run, answers, limits).await?,
                None => tx.accept_run(run, limits).await?,
            };
            // A failure before this line is rolled back.
            tx.commit().await.map_err(Failed::of_commit)?;
            return Ok(answer);
        }
        let refusal = if self.depth.reaches(limits.system).await? {
            Refusal::SystemQueueFull {
                limit: limits.system,
            }
        } else {
            match self.insert_run(tenant, run, limits).await? {
                Some(created_at) => return Ok(Accept::created(created_at)),
                None => Refusal::TenantQueueFull {
                    limit: limits.tenant,
                },
            }
        };
        let known = match run.idempotency {
            None => None,
            Some(key) => self.tenant(tenant).await?.repetition(key).await?,
        };
        Ok(known.unwrap_or(Accept::Refused(refusal)))
    }

    /// Inserts the run in a commit that it may share with others of its tenant, and returns the time
    /// in its row; `None` if nothing was written.
    async fn insert_run(
        &self,
        tenant: TenantId,
        run: &NewRun<'_>,
        limits: &QueueLimits,
    ) -> Result<Option<DateTime<Utc>>, Failed> {
        let row = Arc::new(AcceptRow::new(tenant, run, limits.tenant)?);
        let grouped = match run.idempotency {
            None => self.groups.accept(&row).await,
            Some(_) => Submitted::Left,
        };
        let inserted = match grouped {
            Submitted::Answered(answer) => answer,
            Submitted::Left => insert_run(&self.tenant_statements, &row, run.idempotency).await,
            Submitted::Lost => return Err(Failed::Perhaps(None)),
        };
        inserted.map_err(Failed::of_commit)
    }
}

/// The failure of a try.
enum Failed {
    /// Nothing was written, and nothing will be.
    Before(StoreError),
    /// The run may have been committed. A group that failed keeps its error to itself.
    Perhaps(Option<StoreError>),
}

impl Failed {
    /// Sorts the error of a statement that was to commit.
    fn of_commit(error: StoreError) -> Self {
        if error.may_have_committed() {
            Self::Perhaps(Some(error))
        } else {
            Self::Before(error)
        }
    }
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self::Before(error)
    }
}

impl Accept {
    const fn created(created_at: DateTime<Utc>) -> Self {
        Self::Created {
            created_at,
            cancelled: Vec::new(),
            title_model: None,
        }
    }

    /// Returns whether the answer is about a run in the ledger, and not about the limits.
    const fn is_of_accepted(&self) -> bool {
        matches!(
            self,
            Self::Created { .. }
                | Self::Steered(_)
                | Self::Replay(_)
                | Self::Refused(Refusal::KeyReused | Refusal::IdTaken)
        )
    }
}

/// Returns whether an insert failed because the run exists already.
fn is_known_run(error: &StoreError) -> bool {
    match error {
        StoreError::Refused(refused) => refused
            .as_database_error()
            .is_some_and(|refused| matches!(refused.constraint(), Some("runs_pkey" | "runs_id"))),
        _ => false,
    }
}

impl TenantTx {
    /// As [`Store::accept_run`], in a larger transaction: the run is accepted when
    /// [`TenantTx::commit`] has returned.
    pub async fn accept_run(
        &mut self,
        run: &NewRun<'_>,
        limits: &QueueLimits,
    ) -> Result<Accept, StoreError> {
        let title_model = match run.thread_id {
            None => None,
            Some(thread) => match self.join_thread(run, thread).await? {
                ControlFlow::Break(answer) => return Ok(answer),
                ControlFlow::Continue(title_model) => title_model,
            },
        };
        if let Some(thread) = run.titles
            && !self.lock_untitled(thread).await?
        {
            return Ok(Accept::Refused(Refusal::TitleNotWanted));
        }
        let refusal = if self.depth.reaches(limits.system).await? {
            Refusal::SystemQueueFull {
                limit: limits.system,
            }
        } else {
            match self.insert_within_limits(run, limits).await? {
                Ok(created_at) => {
                    let cancelled = match run.thread_id {
                        Some(thread) => self.cancel_others(thread, run).await?,
                        None => Vec::new(),
                    };
                    if let Some(thread) = run.titles {
                        self.take_title_wish(thread, run.id).await?;
                    }
                    return Ok(Accept::Created {
                        created_at,
                        cancelled,
                        title_model,
                    });
                }
                Err(refusal) => refusal,
            }
        };
        let known = match run.idempotency {
            None => None,
            Some(key) => self.repetition(key).await?,
        };
        Ok(known.unwrap_or(Accept::Refused(refusal)))
    }

    /// As [`TenantTx::accept_run`], with the answers to the questions of a parked run.
    async fn accept_answering_run(
        &mut self,
        run: &NewRun<'_>,
        answers: &Answers,
        limits: &QueueLimits,
    ) -> Result<Accept, StoreError> {
        let refusal = self.lock_questions(answers).await?;
        if let Some(refusal) = refusal {
            let known = match run.idempotency {
                None => None,
                Some(key) => self.repetition(key).await?,
            };
            return Ok(known.unwrap_or(Accept::Refused(refusal)));
        }
        let mut accepted = self.accept_run(run, limits).await?;
        if let Accept::Created { cancelled, .. } = &mut accepted {
            cancelled.push(self.answer_questions(answers, run.api_key_id).await?);
        }
        Ok(accepted)
    }

    /// Locks the run's thread, so that its runs are accepted one after the other. Breaks with the answer
    /// if the run cannot join, or if its key was used before. Continues with the model that is to title
    /// the thread.
    async fn join_thread(
        &mut self,
        run: &NewRun<'_>,
        thread: ThreadId,
    ) -> Result<ControlFlow<Accept, Option<String>>, StoreError> {
        let locked = self.locked_thread(thread).await?;
        if let Some(key) = run.idempotency
            && let Some(known) = self.repetition(key).await?
        {
            return Ok(ControlFlow::Break(known));
        }
        let Some(locked) = locked else {
            let refusal = Refusal::ThreadNotFound;
            return Ok(ControlFlow::Break(Accept::Refused(refusal)));
        };
        let answer = match (locked.is_busy, run.on_busy) {
            (true, OnBusy::Reject) => Some(Accept::Refused(Refusal::ThreadBusy)),
            (true, OnBusy::Steer) => self.steer_thread(run, thread).await?,
            _ => None,
        };
        Ok(match answer {
            Some(answer) => ControlFlow::Break(answer),
            None => ControlFlow::Continue(locked.title_model),
        })
    }

    /// Inserts the run if its key and the queue have room for it, and returns the time in its row.
    /// A refusal writes nothing.
    async fn insert_within_limits(
        &mut self,
        run: &NewRun<'_>,
        limits: &QueueLimits,
    ) -> Result<Result<DateTime<Utc>, Refusal>, StoreError> {
        let tenant = self.tenant;
        let standing = match run.api_key_id.zip(run.metered) {
            None => None,
            Some((key, first_turn)) => match self.stand(key, &first_turn).await? {
                Ok(standing) => Some(standing),
                Err(refusal) => return Ok(Err(refusal)),
            },
        };
        let row = AcceptRow::new(tenant, run, limits.tenant)?;
        let Some(created_at) = insert_run(self.connection(), &row, run.idempotency).await? else {
            let limit = limits.tenant;
            return Ok(Err(Refusal::TenantQueueFull { limit }));
        };
        if let Some(standing) = standing {
            self.reserve(run, &standing).await?;
        }
        Ok(Ok(created_at))
    }

    /// Returns the answer for a key that was used before. This statement runs even if the queue is
    /// full, because a repetition must get its answer. It begins after the insert, so that it sees
    /// the commit of the transaction that won the key.
    pub(super) async fn repetition(
        &mut self,
        key: &IdempotencyKey,
    ) -> Result<Option<Accept>, StoreError> {
        let Some(used) = self.used_key(&key.key).await? else {
            return Ok(None);
        };
        if used.fingerprint != key.fingerprint {
            return Ok(Some(Accept::Refused(Refusal::KeyReused)));
        }
        // The key and its run are one commit. A run that is gone was deleted with its thread.
        let run = self.run(used.run).await?;
        Ok(Some(match run {
            Some(run) => Accept::Replay(Box::new(run)),
            None => Accept::Refused(Refusal::KeyReused),
        }))
    }
}

/// Inserts the run, and its key if it has one; returns the time in the inserted row.
async fn insert_run(
    executor: impl PgExecutor<'_>,
    row: &AcceptRow,
    key: Option<&IdempotencyKey>,
) -> Result<Option<DateTime<Utc>>, StoreError> {
    match key {
        None => accept_alone(executor, row).await,
        Some(key) => accept_keyed(executor, row, key).await,
    }
}
