//! The person who decides: settles each call that waits, sometimes twice at once.

use std::sync::Arc;
use std::time::Duration;

use baton_protocol::{
    ApprovalId, ApprovalReason, ApprovalScope, Decision, FinishReason, ReachedLimit, RequestLimits,
    RunId,
};
use http::{Method, StatusCode};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::load::{Load, code_of, whole};
use crate::checker::What;
use crate::client::Client;

/// The ways to decide about a limit; each is counted by its name.
pub const DOINGS: [&str; 3] = [
    "limit decided by its question",
    "limit raised by PATCH",
    "limit decided over NATS",
];
/// The interval of looking for open questions.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The person who decides for one tenant.
#[derive(Debug)]
pub struct Operator {
    /// The state that all clients share.
    pub load: Arc<Load>,
    /// A client of the tenant's, at each ingress.
    pub servers: Vec<Client>,
}

impl Operator {
    /// Decides all open questions, until nobody is needed any longer.
    pub async fn operate(self, seed: u64) {
        let mut random = StdRng::seed_from_u64(seed);
        let working = async {
            loop {
                for run in self.waiting(&mut random).await {
                    for question in self.open_approvals(&mut random, run).await {
                        self.decide(&mut random, run, question).await;
                    }
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        let working = Box::pin(working);
        self.load.done.run_until_cancelled(working).await;
    }

    /// Decides one question. Without an answer, it is found open again the next time.
    async fn decide(&self, random: &mut StdRng, run: RunId, question: Question) {
        let decision = question.any_decision(random);
        if !random.random_bool(0.3) {
            return self.ask(random, run, &question, &decision).await;
        }
        // Two decisions at once; one of them may be too late.
        let other = question.any_decision(random);
        let mut others = StdRng::seed_from_u64(random.random());
        tokio::join!(
            self.ask(random, run, &question, &decision),
            self.ask(&mut others, run, &question, &other)
        );
    }

    /// Sends a decision by one of the ways for it.
    async fn ask(&self, random: &mut StdRng, run: RunId, question: &Question, decision: &Decision) {
        let is_limit = question.reason == ApprovalReason::Budget;
        match (decision, random.random_range(0..4)) {
            (Decision::Raise { limits }, 0) => self.patch(random, run, limits).await,
            (_, 1) if is_limit => self.tell(run, question.id, decision).await,
            _ => self.post(random, run, question, decision).await,
        }
    }

    async fn post(
        &self,
        random: &mut StdRng,
        run: RunId,
        question: &Question,
        decision: &Decision,
    ) {
        let path = format!("/v1/runs/{run}/approvals/{}", question.id);
        let body = json!(decision);
        let server = self.server(random.random());
        match whole(server.send(Method::POST, &path, &[], Some(&body))).await {
            Ok((StatusCode::OK, answer)) => {
                if let Ok(decision) = serde_json::from_value(answer["decision"].clone()) {
                    self.decided(run, question.id, decision);
                }
                if question.reason == ApprovalReason::Budget {
                    self.did(DOINGS[0]);
                }
            }
            Ok((status, answer)) => self.load.refused(status, code_of(&answer)),
            Err(_) => self.load.unanswered(),
        }
    }

    /// Raises limits of a run. The answer does not name the question, which may be a later one by now.
    async fn patch(&self, random: &mut StdRng, run: RunId, limits: &RequestLimits) {
        let path = format!("/v1/runs/{run}");
        let body = json!({"limits": limits});
        let server = self.server(random.random());
        match whole(server.send(Method::PATCH, &path, &[], Some(&body))).await {
            Ok((StatusCode::OK, _)) => self.did(DOINGS[1]),
            Ok((status, answer)) => self.load.refused(status, code_of(&answer)),
            Err(_) => self.load.unanswered(),
        }
    }

    /// Decides over NATS.
    async fn tell(&self, run: RunId, approval: ApprovalId, decision: &Decision) {
        let Some(program) = &self.load.program else {
            return;
        };
        let mut message = json!(decision);
        message["v"] = json!(1);
        message["run_id"] = json!(run);
        message["approval_id"] = json!(approval);
        match program.control("decide", run, message).await {
            Ok(answer) if answer["ok"] == true => {
                self.decided(run, approval, decision.clone());
                self.did(DOINGS[2]);
            }
            Ok(answer) => {
                let code = answer["error"]["code"].as_str().unwrap_or("?");
                self.load.refused(StatusCode::OK, code);
            }
            Err(_) => self.load.unanswered(),
        }
    }

    fn decided(&self, run: RunId, approval: ApprovalId, decision: Decision) {
        self.load.recorder.note(What::Decided {
            run,
            approval,
            decision,
        });
    }

    fn did(&self, kind: &str) {
        let kind = kind.to_owned();
        self.load.recorder.note(What::Did { kind });
    }

    fn server(&self, seed: u64) -> &Client {
        let count = self.servers.len() as u64;
        &self.servers[usize::try_from(seed % count).unwrap_or(0)]
    }

    async fn waiting(&self, random: &mut StdRng) -> Vec<RunId> {
        let path = "/v1/runs?limit=100&status=awaiting_approval";
        self.listed(random.random(), path, |run| {
            run["id"].as_str()?.parse().ok()
        })
        .await
    }

    async fn open_approvals(&self, random: &mut StdRng, run: RunId) -> Vec<Question> {
        let path = format!("/v1/runs/{run}/approvals");
        self.listed(random.random(), &path, |approval| {
            if approval["status"] != "open" {
                return None;
            }
            serde_json::from_value(approval.clone()).ok()
        })
        .await
    }

    /// Returns the wanted part of a list; an empty list if it cannot be had now.
    async fn listed<T>(
        &self,
        seed: u64,
        path: &str,
        wanted: impl Fn(&Value) -> Option<T>,
    ) -> Vec<T> {
        let asked = whole(self.server(seed).send(Method::GET, path, &[], None)).await;
        match asked {
            Ok((StatusCode::OK, list)) => list["data"]
                .as_array()
                .map_or_else(Vec::new, |list| list.iter().filter_map(&wanted).collect()),
            Ok((status, answer)) => {
                self.load.refused(status, code_of(&answer));
                Vec::new()
            }
            Err(_) => {
                self.load.unanswered();
                Vec::new()
            }
        }
    }
}

/// An open question.
#[derive(Debug, Clone, Deserialize)]
struct Question {
    id: ApprovalId,
    reason: ApprovalReason,
    budget: Option<ReachedLimit>,
}

impl Question {
    fn any_decision(&self, random: &mut StdRng) -> Decision {
        match (self.reason, random.random_range(0..3)) {
            (ApprovalReason::OutcomeUnknown, 0) => Decision::Retry {},
            (ApprovalReason::OutcomeUnknown, 1) => Decision::Result {
                result: "counted, by hand".to_owned(),
            },
            (ApprovalReason::OutcomeUnknown, _) => Decision::Fail {
                reason: "given up".to_owned(),
            },
            (ApprovalReason::Budget, _) => match &self.budget {
                Some(reached) if random.random_bool(0.85) => Decision::Raise {
                    limits: raised(random, reached),
                },
                _ => Decision::Stop {},
            },
            // The load's tools ask nothing.
            (ApprovalReason::Input, _) => Decision::Cancel {},
            (ApprovalReason::ApprovalRequired, 0) => Decision::Reject {
                reason: "not today".to_owned(),
            },
            (ApprovalReason::ApprovalRequired, kind) => Decision::Approve {
                arguments: (kind == 1)
                    .then(|| Map::from_iter([("by".to_owned(), random.random::<u32>().into())])),
                scope: if random.random_bool(0.2) {
                    ApprovalScope::Run
                } else {
                    ApprovalScope::Once
                },
            },
        }
    }
}

/// Returns a higher limit, which the run may reach again.
fn raised(random: &mut StdRng, reached: &ReachedLimit) -> RequestLimits {
    let mut raised = RequestLimits::default();
    if reached.limit == FinishReason::MaxToolCalls {
        let calls = reached.limits.max_tool_calls.unwrap_or_default();
        let used = calls.max(reached.used.tool_calls);
        raised.max_tool_calls = Some(used + random.random_range(1..5));
    } else {
        let tokens = reached.limits.max_tokens.unwrap_or_default();
        let used = tokens.max(reached.used.tokens);
        raised.max_tokens = Some(used + random.random_range(300..4_000));
    }
    raised
}
