//! Responses that ask for the approval of a call of an MCP server's tool, and the answers of later requests,
//! sometimes several at once.

use std::time::Duration;

use futures_util::future::join_all;
use http::Method;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};

use super::tries::{Final, Request};
use super::{DOINGS, Talkers};
use crate::chaos::outside::{ASKER, DESK};
use crate::checker::What;

const RESPONSES: &str = "/v1/responses";
/// The interval of looking whether a response asks.
const LOOK_EVERY: Duration = Duration::from_millis(200);

impl Talkers {
    /// Makes a response that asks for an approval, and answers. The operator may decide before.
    pub(super) async fn ask(&self, random: &mut StdRng) {
        let prompt = self.prompt(random);
        let body = json!({
            "model": ASKER, "input": prompt.text(), "background": true, "tools": [tool()],
        });
        let key = format!("ask-{}", prompt.id);
        let Some(asked) = self.respond(random, &key, &body).await else {
            return;
        };
        let Some(request) = self.approval_request(random, &asked).await else {
            return;
        };
        let count = if random.random_bool(0.4) { 3 } else { 1 };
        let answers = (0..count).map(|number| {
            let key = format!("answer-{}-{number}", prompt.id);
            let answer = json!({
                "type": "mcp_approval_response", "approval_request_id": request,
                "approve": random.random_bool(0.7),
            });
            let body = json!({
                "model": ASKER, "background": true, "previous_response_id": asked,
                "input": [answer], "tools": [tool()],
            });
            self.answer(random.random(), key, body)
        });
        let answers: Vec<_> = answers.collect();
        let won = join_all(answers).await.into_iter().any(|is_taken| is_taken);
        if won {
            let kind = DOINGS[if count > 1 { 16 } else { 15 }].to_owned();
            self.load.recorder.note(What::Did { kind });
        }
    }

    /// Sends one answer; returns whether it was taken.
    async fn answer(&self, seed: u64, key: String, body: Value) -> bool {
        let mut random = StdRng::seed_from_u64(seed);
        self.respond(&mut random, &key, &body).await.is_some()
    }

    /// Makes a response; returns its id.
    async fn respond(&self, random: &mut StdRng, key: &str, body: &Value) -> Option<String> {
        let request = Request::Http {
            method: Method::POST,
            path: RESPONSES,
            key: Some(key),
            body,
        };
        match self.insist(random, &request).await {
            Final::Accepted(made) => made["id"].as_str().map(str::to_owned),
            Final::Refused { .. } => None,
        }
    }

    /// Waits until a response asks for an approval; `None` if it ends without.
    async fn approval_request(&self, random: &mut StdRng, id: &str) -> Option<Value> {
        let path = format!("{RESPONSES}/{id}");
        loop {
            let request = Request::Http {
                method: Method::GET,
                path: &path,
                key: None,
                body: &Value::Null,
            };
            let Final::Accepted(now) = self.insist(random, &request).await else {
                return None;
            };
            let mut output = now["output"].as_array().into_iter().flatten();
            if let Some(asked) = output.find(|item| item["type"] == "mcp_approval_request") {
                return Some(asked["id"].clone());
            }
            if now["status"] != "queued" && now["status"] != "in_progress" {
                return None;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

fn tool() -> Value {
    json!({"type": "mcp", "server_label": DESK, "require_approval": "always"})
}
