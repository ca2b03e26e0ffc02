//! Runs on threads, through every door.

use baton_protocol::RunId;
use baton_service::{Clock as _, SystemClock};
use http::Method;
use rand::RngExt as _;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::tries::{Final, Request};
use super::{DOINGS, RULES, Talkers};
use crate::chaos::outside::TALK;

/// A way to make a run on a thread.
#[derive(Debug, Clone, Copy)]
enum Door {
    Runs,
    Chat,
    Responses,
    Bus,
}

/// The doors, from which one is taken by chance.
const DOORS: [Door; 5] = [
    Door::Runs,
    Door::Runs,
    Door::Chat,
    Door::Responses,
    Door::Bus,
];

impl Door {
    /// Returns the name under which its runs are counted.
    const fn name(self) -> &'static str {
        match self {
            Self::Runs => DOINGS[5],
            Self::Chat => DOINGS[6],
            Self::Responses => DOINGS[7],
            Self::Bus => DOINGS[8],
        }
    }

    /// Returns the number of rules for a busy thread that its requests may choose from.
    const fn rules(self) -> usize {
        match self {
            // A response is an answer of its own, and a program steers with a message of another kind.
            Self::Responses | Self::Bus => RULES.len() - 1,
            Self::Runs | Self::Chat => RULES.len(),
        }
    }
}

impl Talkers {
    /// Makes a run on a thread, or sends its message to the one that works; returns the run.
    pub(super) async fn talk(&self, random: &mut StdRng) -> Option<RunId> {
        let thread = self.thread(random).await?;
        let door = DOORS[random.random_range(0..DOORS.len())];
        let rule = random.random_range(0..door.rules());
        let prompt = self.prompt(random);
        let key = format!("talk-{}", prompt.id);
        let mut body = json!({
            "model": TALK, "on_busy": RULES[rule], "metadata": {"on_busy": RULES[rule]},
        });
        let text = prompt.text();
        let own = RunId::new(SystemClock.now());
        match door {
            Door::Runs | Door::Bus => {
                body["input"] = json!(text);
                body["thread_id"] = json!(thread);
            }
            Door::Chat => {
                body["messages"] = json!([{"role": "user", "content": text}]);
                body["thread_id"] = json!(thread);
                body["stream"] = json!(true);
            }
            Door::Responses => {
                body["input"] = json!(text);
                body["conversation"] = json!(format!("conv_{thread}"));
                body["background"] = json!(true);
            }
        }
        let post = |path| Request::Http {
            method: Method::POST,
            path,
            key: Some(&key),
            body: &body,
        };
        let request = match door {
            Door::Runs => post("/v1/runs"),
            Door::Responses => post("/v1/responses"),
            Door::Chat => Request::Chat {
                key: &key,
                body: &body,
            },
            Door::Bus => Request::Submit {
                run: own,
                request: &body,
            },
        };
        match self.insist(random, &request).await {
            Final::Accepted(answer) => {
                let run = match door {
                    Door::Bus => Some(own),
                    Door::Responses => id_in(&answer, "resp_"),
                    Door::Runs | Door::Chat => id_in(&answer, ""),
                };
                if let Some(run) = run {
                    self.said(run, &prompt, &[DOINGS[rule], door.name()]);
                }
                run
            }
            Final::Refused { in_doubt, .. } => {
                self.unsaid(&prompt, in_doubt);
                None
            }
        }
    }
}

/// Reads the run's id in the answer that accepts it.
fn id_in(answer: &Value, prefix: &str) -> Option<RunId> {
    answer["id"].as_str()?.strip_prefix(prefix)?.parse().ok()
}
