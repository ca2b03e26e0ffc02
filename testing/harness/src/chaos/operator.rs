//! The person who decides: settles each call that waits, sometimes twice at once.

use std::sync::Arc;
use std::time::Duration;

use baton_protocol::{ApprovalId, ApprovalReason, ApprovalScope, Decision, RunId};
use http::{Method, StatusCode};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Map, Value, json};

use super::load::{Load, code_of, whole};
use crate::checker::What;
use crate::client::Client;

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
        self.load.done.run_until_cancelled(working).await;
    }

    /// Decides one call. Without an answer, the question is found open again the next time.
    async fn decide(
        &self,
        random: &mut StdRng,
        run: RunId,
        (approval, reason): (ApprovalId, ApprovalReason),
    ) {
        let decision = any_decision(random, reason);
        if !random.random_bool(0.3) {
            return self.ask(random.random(), run, approval, &decision).await;
        }
        // Two decisions at once; one of them may be too late.
        let other = any_decision(random, reason);
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
                self.load.recorder.note(What::Decided {
                    run,
                    approval,
                    decision,
                });
            }
            Ok((status, answer)) => self.load.refused(status, code_of(&answer)),
            Err(_) => self.load.unanswered(),
        }
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

    async fn open_approvals(
        &self,
        random: &mut StdRng,
        run: RunId,
    ) -> Vec<(ApprovalId, ApprovalReason)> {
        let path = format!("/v1/runs/{run}/approvals");
        self.listed(random.random(), &path, |approval| {
            if approval["status"] != "open" {
                return None;
            }
            let id = approval["id"].as_str()?.parse().ok()?;
            let reason = serde_json::from_value(approval["reason"].clone()).ok()?;
            Some((id, reason))
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

fn any_decision(random: &mut StdRng, reason: ApprovalReason) -> Decision {
    match (reason, random.random_range(0..3)) {
        (ApprovalReason::OutcomeUnknown, 0) => Decision::Retry {},
        (ApprovalReason::OutcomeUnknown, 1) => Decision::Result {
            result: "counted, by hand".to_owned(),
        },
        (ApprovalReason::OutcomeUnknown, _) => Decision::Fail {
            reason: "given up".to_owned(),
        },
        // The load's runs have no limits of their own.
        (ApprovalReason::Budget, _) => Decision::Stop {},
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
