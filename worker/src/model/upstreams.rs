//! The configured upstreams, and the way of a turn to one of them.
//!
//! A route names several upstreams in an order. A turn is sent to the first one that is healthy and has
//! room; if that fails before the first token, the next one is asked at once. After the last one the
//! turn waits, and begins with the first again.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use baton_routing::{Needs, Routes, Target, Unroutable};
use baton_service::config::LlmConfig;
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use super::client::{ModelClient, TurnContext, TurnParts};
use super::config::{ModelConfig, ModelSetupError};
use super::exchange::Exchange;
use super::health::Health;
use super::{ModelError, RetryPolicy, TurnStream, Wait};
use crate::metrics;

/// The upstreams of a configuration, by their names, and the routes to them.
#[derive(Debug)]
pub struct Upstreams {
    routes: Routes,
    by_name: BTreeMap<Arc<str>, Arc<Upstream>>,
    turn_retry: RetryPolicy,
}

/// An upstream, its health and its room for requests.
#[derive(Debug)]
struct Upstream {
    name: Arc<str>,
    config: ModelConfig,
    client: ModelClient,
    health: Mutex<Health>,
    room: Option<Arc<Semaphore>>,
}

/// A turn with an answer that has begun.
#[derive(Debug)]
pub struct StartedTurn {
    /// The answer.
    pub stream: TurnStream,
    /// The upstream that gives it, and the model's name there.
    pub target: Target,
    /// The upstreams that were passed over or failed before.
    pub fallbacks: Vec<Fallback>,
}

/// An upstream that did not answer a turn, so that another one was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fallback {
    /// The name of the upstream.
    pub upstream: Arc<str>,
    /// The model's name there.
    pub model: String,
    /// The code of its error, or one of [`Fallback::PASSED_OVER`].
    pub reason: &'static str,
}

impl Fallback {
    /// The reasons for which an upstream is not asked: it failed lately, or has no room.
    pub const PASSED_OVER: [&'static str; 2] = [DOWN, BUSY];
}

const DOWN: &str = "down";
const BUSY: &str = "busy";

impl Upstreams {
    /// Makes the upstreams of a configuration. An unchanged upstream of an earlier one is kept, with its
    /// connections and its health.
    pub fn new(config: &LlmConfig, earlier: Option<&Self>) -> Result<Self, ModelSetupError> {
        let all = config.all_upstreams();
        if all.is_empty() {
            return Err(ModelSetupError::NoBaseUrl);
        }
        let upstreams = all.into_iter().map(|upstream| {
            let name = Arc::<str>::from(&*upstream.name);
            let config = ModelConfig::of(config, upstream);
            let known = earlier.and_then(|earlier| earlier.by_name.get(&name));
            if let Some(known) = known.filter(|known| known.config == config) {
                return Ok(Arc::clone(known));
            }
            let client = ModelClient::with_config(config.clone())?;
            Ok(Arc::new(Upstream::new(name, config, client)))
        });
        Self::of(upstreams, config.all_routes())
    }

    /// Makes one upstream that serves every model.
    pub fn one(config: ModelConfig) -> Result<Self, ModelSetupError> {
        let client = ModelClient::with_config(config.clone())?;
        Self::one_client(config, client)
    }

    /// As [`Upstreams::one`], over another way to send its requests.
    pub fn one_over(http: Arc<dyn Exchange>, config: ModelConfig) -> Result<Self, ModelSetupError> {
        let client = ModelClient::over(http, config.clone())?;
        Self::one_client(config, client)
    }

    fn one_client(config: ModelConfig, client: ModelClient) -> Result<Self, ModelSetupError> {
        let name = baton_service::config::ONLY_UPSTREAM;
        let routes = Routes::to_one(name, baton_routing::Knows::default());
        let upstream = Upstream::new(name.into(), config, client);
        Self::of([Ok(Arc::new(upstream))], routes)
    }

    fn of(
        upstreams: impl IntoIterator<Item = Result<Arc<Upstream>, ModelSetupError>>,
        routes: Routes,
    ) -> Result<Self, ModelSetupError> {
        let mut turn_retry = RetryPolicy::default();
        let mut by_name = BTreeMap::new();
        for upstream in upstreams {
            let upstream = upstream?;
            turn_retry = RetryPolicy {
                max_retries: upstream.config.turn_retries,
                ..upstream.config.retry
            };
            by_name.insert(Arc::clone(&upstream.name), upstream);
        }
        Ok(Self {
            routes,
            by_name,
            turn_retry,
        })
    }

    /// Returns each upstream's name, and whether it is healthy.
    pub(crate) fn health(&self) -> impl Iterator<Item = (&Arc<str>, bool)> {
        let all = self.by_name.iter();
        all.map(|(name, upstream)| (name, upstream.health().is_up()))
    }

    /// Returns the upstreams to ask for a model, in their order: those of its route that can serve the
    /// request, then those of the routes of its fallbacks.
    ///
    /// # Errors
    /// If there are none, the reason why the model itself has none.
    pub fn targets(
        &self,
        model: &str,
        fallbacks: &[String],
        needs: Needs,
    ) -> Result<Vec<Target>, ModelError> {
        let own = self.routes.able(model, needs);
        let error = own.as_ref().err().copied();
        let others = fallbacks
            .iter()
            .filter_map(|fallback| self.routes.able(fallback, needs).ok());
        let mut targets: Vec<Target> = Vec::new();
        for target in own.ok().into_iter().chain(others).flatten() {
            let is_new = targets.iter().all(|it| !it.is_same_model(&target));
            if is_new && self.by_name.contains_key(&target.upstream) {
                targets.push(target);
            }
        }
        if !targets.is_empty() {
            return Ok(targets);
        }
        let model = model.to_owned();
        Err(match error {
            Some(Unroutable::Lacks(field)) => ModelError::NotServed { model, field },
            Some(Unroutable::NoRoute) | None => ModelError::NoRoute { model },
        })
    }

    /// Makes a turn's request for a target of these upstreams.
    pub fn render(&self, target: &Target, parts: &TurnParts<'_>) -> Bytes {
        let upstream = self.by_name.get(&target.upstream);
        upstream.map_or_else(Bytes::new, |upstream| {
            upstream.client.render(&target.model, parts)
        })
    }

    /// Returns the pause before a turn is asked for again after its `failed`-th try (from 1) broke off
    /// with `error` in the middle of its answer; `None` if that was the last.
    pub fn pause_before_next_turn(&self, failed: u32, error: &ModelError) -> Option<Duration> {
        self.turn_retry.turn_pause(failed, error, rand::random())
    }

    /// Sends a turn's request to one of the targets; returns once the first token is there, or the
    /// answer has ended without one. `body` makes the request for a target.
    pub async fn start_turn(
        &self,
        targets: &[Target],
        body: impl Fn(&Target) -> Bytes + Sync,
        context: TurnContext,
    ) -> Result<StartedTurn, ModelError> {
        let mut fallbacks = Vec::new();
        let mut rounds = 0;
        loop {
            let (error, retry) = match self
                .ask_each(targets, &body, &context, &mut fallbacks)
                .await?
            {
                Round::Answered(stream, target) => {
                    return Ok(StartedTurn {
                        stream: *stream,
                        target,
                        fallbacks,
                    });
                }
                Round::Failed(error, retry) => (error, retry),
            };
            rounds += 1;
            let Some(pause) = retry.pause(rounds, &error, rand::random()) else {
                return Err(error);
            };
            tracing::info!(
                error = %error,
                code = error.code(),
                failed = rounds,
                pause = ?pause,
                "the model server is asked again",
            );
            tokio::time::sleep(pause).await;
        }
    }

    /// Asks each target once, until one answers. An error that another target or a later round cannot
    /// mend is returned as such.
    async fn ask_each(
        &self,
        targets: &[Target],
        body: &(impl Fn(&Target) -> Bytes + Sync),
        context: &TurnContext,
        fallbacks: &mut Vec<Fallback>,
    ) -> Result<Round, ModelError> {
        // An upstream that was passed over is asked after all others, because it may do better than they.
        let mut queue: VecDeque<_> = targets.iter().map(|target| (target, false)).collect();
        let mut failed: Option<(ModelError, RetryPolicy)> = None;
        while let Some((target, again)) = queue.pop_front() {
            let Some(upstream) = self.by_name.get(&target.upstream) else {
                continue;
            };
            let may_pass = !again && !queue.is_empty();
            let fall_back = |fallbacks: &mut Vec<Fallback>, reason| {
                upstream.note_fallback(&target.model, reason);
                fallbacks.push(Fallback {
                    upstream: Arc::clone(&upstream.name),
                    model: target.model.clone(),
                    reason,
                });
            };
            if may_pass && !upstream.health().admits(Instant::now()) {
                fall_back(fallbacks, DOWN);
                queue.push_back((target, true));
                continue;
            }
            let place = match upstream.try_place() {
                Ok(place) => place,
                Err(room) if may_pass => {
                    drop(room);
                    fall_back(fallbacks, BUSY);
                    queue.push_back((target, true));
                    continue;
                }
                Err(room) => Some(upstream.wait_for_place(room).await?),
            };
            let tried = upstream.client.try_turn(body(target), context).await;
            metrics::model_request(tried.as_ref().map(drop));
            upstream.record(tried.as_ref().err());
            let error = match tried {
                Ok(stream) => {
                    let stream = Box::new(stream.holding(place));
                    return Ok(Round::Answered(stream, target.clone()));
                }
                Err(error) => error,
            };
            let may_cost = context.only_free_retries && !error.costs_nothing();
            if may_cost || !error.another_may_do_better() {
                return Err(error);
            }
            if !queue.is_empty() {
                fall_back(fallbacks, error.code());
            }
            // One that may go better later says more than a quota that is spent.
            if failed.as_ref().is_none_or(|(other, _)| !other.retryable()) {
                failed = Some((error, upstream.config.retry));
            }
        }
        // There is a target: `targets` has seen to it.
        let (error, retry) = failed.unwrap_or_else(|| {
            let model = String::new();
            (ModelError::NoRoute { model }, RetryPolicy::default())
        });
        Ok(Round::Failed(error, retry))
    }
}

/// The result of asking each target once.
enum Round {
    /// One of them answers.
    Answered(Box<TurnStream>, Target),
    /// None of them does: an error that may go better, and the policy of its upstream.
    Failed(ModelError, RetryPolicy),
}

impl Upstream {
    fn new(name: Arc<str>, config: ModelConfig, client: ModelClient) -> Self {
        let places = config.max_concurrent;
        Self {
            name,
            client,
            config,
            health: Mutex::default(),
            room: places.map(|places| Arc::new(Semaphore::new(places as usize))),
        }
    }

    fn health(&self) -> std::sync::MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place if there is one; none is needed without a limit.
    fn try_place(&self) -> Result<Option<OwnedSemaphorePermit>, Arc<Semaphore>> {
        let Some(room) = &self.room else {
            return Ok(None);
        };
        let place = Arc::clone(room).try_acquire_owned();
        place.map(Some).map_err(|_| Arc::clone(room))
    }

    async fn wait_for_place(
        &self,
        room: Arc<Semaphore>,
    ) -> Result<OwnedSemaphorePermit, ModelError> {
        let place = timeout(self.config.timeouts.first_byte, room.acquire_owned()).await;
        // It is never closed.
        place
            .ok()
            .and_then(Result::ok)
            .ok_or(ModelError::TimedOut(Wait::Place))
    }

    /// Records the result of a request: a failure of the upstream, or an answer of any other kind.
    fn record(&self, error: Option<&ModelError>) {
        match error {
            Some(error) if error.is_outage() => {
                if self.health().failed(Instant::now()) {
                    metrics::upstream_up(&self.name, false);
                    tracing::warn!(
                        upstream = &*self.name,
                        code = error.code(),
                        "an upstream failed several times: others are asked before it"
                    );
                }
            }
            _ => {
                if self.health().answered() {
                    metrics::upstream_up(&self.name, true);
                    tracing::info!(upstream = &*self.name, "an upstream answers again");
                }
            }
        }
    }

    fn note_fallback(&self, model: &str, reason: &'static str) {
        metrics::fallback(&self.name, reason);
        tracing::info!(
            upstream = &*self.name,
            model,
            code = reason,
            "another upstream is asked in place of this one"
        );
    }
}

#[cfg(test)]
mod tests;
