//! One client: it repeats each request until it is answered.

use std::sync::Arc;
use std::time::Duration;

use baton_protocol::{RequestLimits, RunId, RunStatus};
use baton_service::{Clock as _, SystemClock};
use http::{Method, StatusCode};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};

use super::{AGAIN, Habit, LARGE, LARGE_BODY, Load, code_of, whole};
use crate::chaos::outside::Prompt;
use crate::checker::What;
use crate::client::Client;

/// One client.
pub(super) struct Guest {
    pub(super) random: StdRng,
    pub(super) load: Arc<Load>,
}

impl Guest {
    pub(super) fn prompt(&mut self, habit: Habit) -> Prompt {
        let id = self.load.fresh();
        let (words, gap_ms, tool_turns) = match habit {
            Habit::Slow => (400, 0, 0),
            Habit::Mute => (1_500, 0, 0),
            Habit::Tools if self.load.long_answers => (self.random.random_range(100..200), 20, 2),
            Habit::Tools => (10, 10, self.random.random_range(1..4)),
            Habit::Bounded => (
                self.random.random_range(100..300),
                5,
                self.random.random_range(0..4),
            ),
            Habit::Cancel => (60, 30, self.random.random_range(0..2)),
            Habit::Chat | Habit::Follow | Habit::Program | Habit::Large
                if self.load.long_answers =>
            {
                (self.random.random_range(100..200), 20, 0)
            }
            Habit::Chat | Habit::Follow | Habit::Program | Habit::Large => {
                (self.random.random_range(5..50), 20, 0)
            }
        };
        Prompt {
            id,
            words,
            gap_ms,
            tool_turns,
        }
    }

    /// Returns limits that a run reaches before its first turn, in the middle of an answer, or by its calls.
    fn low_limits(&mut self) -> RequestLimits {
        let mut limits = RequestLimits::default();
        if self.random.random_bool(0.3) {
            limits.max_tool_calls = Some(self.random.random_range(1..6));
        } else {
            limits.max_tokens = Some(self.random.random_range(50..2_500));
        }
        limits
    }

    pub(super) fn server(&mut self) -> Client {
        self.load.server(self.random.random()).clone()
    }

    pub(super) fn note(&self, what: What) {
        self.load.recorder.note(what);
    }

    /// Submits a run with a key, repeatedly until it is accepted; then follows it to its end.
    pub(super) async fn run(&mut self, habit: Habit) {
        let prompt = self.prompt(habit);
        let mut body = json!({"model": "chaos", "input": prompt.text()});
        let limits = (habit == Habit::Bounded).then(|| self.low_limits());
        if let Some(limits) = &limits {
            body["limits"] = json!(limits);
            body["on_limit"] = json!("park");
        }
        let over_nats = match habit {
            Habit::Program => true,
            Habit::Bounded => self.random.random_bool(0.3),
            _ => false,
        };
        let run = if over_nats {
            self.publish(&prompt, &body).await
        } else {
            let key = format!("run-{}", prompt.id);
            if habit == Habit::Large {
                let padding = " x".repeat(self.random.random_range(LARGE) / 2);
                body["input"] = json!(format!("{}{padding}", prompt.text()));
            }
            let run = self.submit(&prompt, &body, &key).await;
            if habit == Habit::Large {
                let kind = LARGE_BODY.to_owned();
                self.note(What::Did { kind });
            }
            if self.random.random_bool(0.15) {
                // As a client that did not get the answer would. If the key then makes another run,
                // the record shows this breach.
                self.submit(&prompt, &body, &key).await;
            }
            run
        };
        if let Some(limits) = limits {
            self.note(What::Bounded { run, limits });
        }
        match habit {
            Habit::Cancel => self.cancel_on_the_way(run).await,
            Habit::Mute => {
                let path = format!("/v1/runs/{run}/events");
                let server = self.server();
                let time = Duration::from_millis(self.random.random_range(500..6_000));
                // The client does not hear any answer.
                let _unheard = server.never_read(&path, time).await;
            }
            _ => {}
        }
        self.follow(run, habit == Habit::Slow).await;
        if self.random.random_bool(0.05) {
            // The cancel is too late and must not change the end.
            self.cancel(run).await;
        }
    }

    pub(super) async fn cancel_on_the_way(&mut self, run: RunId) {
        let after = self.random.random_range(0..1_500);
        tokio::time::sleep(Duration::from_millis(after)).await;
        if self.random.random_bool(0.3) {
            let mut other = Guest {
                random: StdRng::seed_from_u64(self.random.random()),
                load: Arc::clone(&self.load),
            };
            tokio::join!(self.cancel(run), other.cancel(run));
        } else {
            self.cancel(run).await;
        }
    }

    /// Publishes a submission until it is accepted, and sometimes once more. The record and the
    /// run's log show whether the id still names one run.
    pub(super) async fn publish(&mut self, prompt: &Prompt, request: &Value) -> RunId {
        let run = RunId::new(SystemClock.now());
        let mut again = u32::from(self.random.random_bool(0.3));
        let load = Arc::clone(&self.load);
        loop {
            self.note(What::Tried { prompt: prompt.id });
            let answer = match &load.program {
                Some(program) => program.submit(run, request).await,
                None => Err(anyhow::anyhow!("there is no program")),
            };
            match answer {
                Ok(answer) if answer["ok"] == true => {
                    let (key, expected) = (Some(format!("program-{run}")), prompt.expected());
                    self.note(What::Accepted { run, key, expected });
                    if again == 0 {
                        return run;
                    }
                    again -= 1;
                }
                Ok(answer) => {
                    let code = answer["error"]["code"].as_str().unwrap_or("?");
                    load.refused_run(prompt.id, StatusCode::OK, code);
                }
                Err(_) => self.unanswered(),
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    pub(super) async fn submit(&mut self, prompt: &Prompt, body: &Value, key: &str) -> RunId {
        loop {
            let headers = [("idempotency-key", key)];
            let server = self.server();
            self.note(What::Tried { prompt: prompt.id });
            let asked = whole(server.send(Method::POST, "/v1/runs", &headers, Some(body))).await;
            match asked {
                Ok((status, answer)) if status.is_success() => {
                    if let Some(run) = answer["id"].as_str().and_then(|id| id.parse().ok()) {
                        let (key, expected) = (Some(key.to_owned()), prompt.expected());
                        self.note(What::Accepted { run, key, expected });
                        return run;
                    }
                    self.refused(status, "no_id");
                }
                Ok((status, answer)) => {
                    self.load.refused_run(prompt.id, status, code_of(&answer));
                }
                Err(_) => self.unanswered(),
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    pub(super) fn refused(&self, status: StatusCode, code: &str) {
        self.load.refused(status, code);
    }

    pub(super) fn unanswered(&self) {
        self.load.unanswered();
    }

    pub(super) async fn cancel(&mut self, run: RunId) {
        let path = format!("/v1/runs/{run}/cancel");
        loop {
            match whole(self.server().send(Method::POST, &path, &[], None)).await {
                Ok((status, answer)) if status.is_success() => {
                    self.note(What::Cancelled { run });
                    self.told(run, &answer);
                    return;
                }
                Ok((status, answer)) => self.refused(status, code_of(&answer)),
                Err(_) => self.unanswered(),
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Records the state of the run in the answer; returns whether the run has ended.
    pub(super) fn told(&self, run: RunId, answer: &Value) -> bool {
        let status: Option<RunStatus> = serde_json::from_value(answer["status"].clone()).ok();
        if let Some(status) = status {
            self.note(What::Told { run, status });
        }
        status.is_some_and(RunStatus::is_terminal)
    }
}
