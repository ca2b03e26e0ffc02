//! Messages to runs that wait or work, over HTTP and NATS, and cancels of such runs.

use baton_protocol::{MessageId, RunId};
use baton_service::{Clock as _, SystemClock};
use http::{Method, StatusCode};
use rand::RngExt as _;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::tries::{Final, Request};
use super::{DOINGS, Talkers};
use crate::chaos::outside::Prompt;
use crate::checker::{What, WithdrawnAs};

/// The reason of a cancel over NATS.
const REASON: &str = "talker";

impl Talkers {
    /// Sends a message to the run, and sometimes withdraws it; or cancels the run.
    pub(super) async fn address(&self, random: &mut StdRng, run: Option<RunId>) {
        let Some(run) = run else { return };
        match random.random_range(0..10) {
            0 => self.cancel(random, run).await,
            1..4 => self.follow_up(random, run).await,
            _ => self.steer(random, run).await,
        }
    }

    async fn cancel(&self, random: &mut StdRng, run: RunId) {
        let message = json!({"v": 1, "run_id": run, "reason": REASON});
        let path = format!("/v1/runs/{run}/cancel");
        let request = if random.random_bool(0.5) {
            Request::Control {
                verb: "cancel",
                run,
                message: &message,
            }
        } else {
            post(&path, &Value::Null)
        };
        // The run ends anyway.
        self.try_once(random, &request).await;
    }

    async fn steer(&self, random: &mut StdRng, run: RunId) {
        let prompt = self.prompt(random);
        let id = MessageId::new(SystemClock.now());
        let over_nats = random.random_bool(0.3);
        let sent = self
            .send(random, run, id, "steer", &prompt, over_nats)
            .await;
        match sent {
            Final::Accepted(_) => {
                self.said(run, &prompt, &[DOINGS[if over_nats { 10 } else { 9 }]]);
            }
            Final::Refused { in_doubt, .. } => return self.unsaid(&prompt, in_doubt),
        }
        if random.random_bool(0.3) {
            self.withdraw(random, run, id, prompt.text()).await;
        }
    }

    async fn follow_up(&self, random: &mut StdRng, run: RunId) {
        let prompt = self.prompt(random);
        let id = MessageId::new(SystemClock.now());
        let over_nats = random.random_bool(0.3);
        let sent = self
            .send(random, run, id, "follow_up", &prompt, over_nats)
            .await;
        match sent {
            Final::Accepted(_) => {
                // The next run has the id of the message.
                let next = RunId::from_uuid(id.as_uuid());
                self.said(next, &prompt, &[DOINGS[if over_nats { 12 } else { 11 }]]);
            }
            Final::Refused { in_doubt, .. } => self.unsaid(&prompt, in_doubt),
        }
    }

    async fn send(
        &self,
        random: &mut StdRng,
        run: RunId,
        id: MessageId,
        mode: &str,
        prompt: &Prompt,
        over_nats: bool,
    ) -> Final {
        let content = prompt.text();
        if over_nats {
            let message = json!({
                "v": 1, "run_id": run, "content": content, "mode": mode, "message_id": id,
            });
            let request = Request::Control {
                verb: "steer",
                run,
                message: &message,
            };
            return self.insist(random, &request).await;
        }
        let body = json!({"content": content, "id": id, "mode": mode});
        let path = format!("/v1/runs/{run}/messages");
        self.insist(random, &post(&path, &body)).await
    }

    async fn withdraw(&self, random: &mut StdRng, run: RunId, id: MessageId, text: String) {
        let note = |text, end| {
            self.load.recorder.note(What::Withdrawn { text, end });
        };
        note(text.clone(), WithdrawnAs::Asked);
        let request = Request::Http {
            method: Method::DELETE,
            path: &format!("/v1/runs/{run}/messages/{id}"),
            key: None,
            body: &Value::Null,
        };
        let is_gone = match self.insist(random, &request).await {
            Final::Accepted(_) => true,
            // An earlier try withdrew it.
            Final::Refused { status, in_doubt } => {
                in_doubt && status == Some(StatusCode::NOT_FOUND)
            }
        };
        if is_gone {
            note(text, WithdrawnAs::Gone);
            let kind = DOINGS[13].to_owned();
            self.load.recorder.note(What::Did { kind });
        } else {
            note(text, WithdrawnAs::Kept);
        }
    }
}

fn post<'a>(path: &'a str, body: &'a Value) -> Request<'a> {
    Request::Http {
        method: Method::POST,
        path,
        key: None,
        body,
    }
}
