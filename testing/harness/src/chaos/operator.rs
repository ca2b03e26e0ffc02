//! The person who decides: settles each call of unknown outcome, sometimes twice at once.

use std::sync::Arc;
use std::time::Duration;

use baton_protocol::{ApprovalId, Decision, RunId};
use http::{Method, StatusCode};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};

use super::load::{Load, code_of, whole};
use crate::checker::What;

/// The interval of looking for open questions.
const LOOK_EVERY: Duration = Duration::from_millis(500);

impl Load {
    /// Decides all open questions, until nobody is needed any longer.
    pub async fn operate(self: Arc<Self>, seed: u64) {
        let mut random = StdRng::seed_from_u64(seed);
        let working = async {
            loop {
                for run in self.waiting(&mut random).await {
                    for approval in self.open_approvals(&mut random, run).await {
                        self.decide(&mut random, run, approval).await;
                    }
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        self.done.run_until_cancelled(working).await;
    }

    /// Decides one call. Without an answer, the question is found open again the next time.
    async fn decide(&self, random: &mut StdRng, run: RunId, approval: ApprovalId) {
        let decision = any_decision(random);
        if !random.random_bool(0.3) {
            return self.ask(random.random(), run, approval, &decision).await;
        }
        // Two decisions at once; one of them may be too late.
        let other = any_decision(random);
        let (one, two) = (random.random(), random.random());
        tokio::join!(
            self.ask(one, run, approval, &decision),
            self.ask(two, run, approval, &other)
        );
    }

    async fn ask(&self, seed: u64, run: RunId, approval: ApprovalId, decision: &Decision) {
        let path = format!("/v1/runs/{run}/approvals/{approval}");
        let body = json!(decision);
        let server = self.server(seed);
        match whole(server.send(Method::POST, &path, &[], Some(&body))).await {
            Ok((StatusCode::OK, answer)) => {
                let decision = answer["decision"]["decision"].as_str().unwrap_or("?");
                let decision = decision.to_owned();
                self.recorder.note(What::Decided {
                    run,
                    approval,
                    decision,
                });
            }
            Ok((status, answer)) => self.refused(status, code_of(&answer)),
            Err(_) => self.unanswered(),
        }
    }

    async fn waiting(&self, random: &mut StdRng) -> Vec<RunId> {
        let path = "/v1/runs?limit=100&status=awaiting_approval";
        self.listed(random.random(), path, |run| {
            run["id"].as_str()?.parse().ok()
        })
        .await
    }

    async fn open_approvals(&self, random: &mut StdRng, run: RunId) -> Vec<ApprovalId> {
        let path = format!("/v1/runs/{run}/approvals");
        self.listed(random.random(), &path, |approval| {
            let open = approval["status"] == "open";
            open.then(|| approval["id"].as_str()?.parse().ok())
                .flatten()
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
                self.refused(status, code_of(&answer));
                Vec::new()
            }
            Err(_) => {
                self.unanswered();
                Vec::new()
            }
        }
    }
}

fn any_decision(random: &mut StdRng) -> Decision {
    match random.random_range(0..3) {
        0 => Decision::Retry {},
        1 => Decision::Result {
            result: "counted, by hand".to_owned(),
        },
        _ => Decision::Fail {
            reason: "given up".to_owned(),
        },
    }
}
