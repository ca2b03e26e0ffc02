//! The upstream: an HTTP server that answers with random turns, and sometimes fails.

use std::io;

use baton_invariants::Invariant;
use baton_protocol::RunId;
use baton_worker::model::Exchange;
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::unfold;
use reqwest::{Body, Request, Response};
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use crate::executor::ProcessId;
use crate::links::Service;
use crate::outside::Outside;
use crate::time::Millis;
use crate::world::Sim;

/// A process's way to the upstream.
#[derive(Debug)]
pub(crate) struct Upstream(pub(crate) Outside);

/// The body of an answer, from the upstream's end.
type Pieces = UnboundedSender<Result<Bytes, io::Error>>;

impl Exchange for Upstream {
    fn send(&self, request: Request) -> BoxFuture<'_, reqwest::Result<Response>> {
        let (pieces, answer) = unbounded_channel();
        let outside = self.0.clone();
        async move {
            let process = outside.process();
            let status = outside.ask(Service::Outside, move |sim| {
                let asked = Asked::read(&request);
                if let Some(asked) = &asked {
                    sim.look_at_transcript(process, asked);
                    sim.look_at_key(process, asked.run);
                }
                sim.answer(asked, pieces)
            });
            let status = status.await.unwrap_or(503);
            let body = unfold(answer, |mut answer| async move {
                let piece = answer.recv().await?;
                Some((piece, answer))
            });
            let mut response = http::Response::new(Body::wrap_stream(body));
            *response.status_mut() = http::StatusCode::from_u16(status).unwrap_or_default();
            Ok(response.into())
        }
        .boxed()
    }
}

impl Sim {
    /// Plans a random answer; returns its status.
    fn answer(&self, asked: Option<Asked>, pieces: Pieces) -> u16 {
        let Some(asked) = asked else { return 400 };
        match self.below(100) {
            0 => return 500,
            1 => return 400,
            _ => {}
        }
        let mut at = 0;
        let is_long = self.per_mille(100);
        for _ in 0..self.between(1, if is_long { 60 } else { 5 }) {
            at += if is_long {
                self.between(10, 100)
            } else if self.per_mille(100) {
                self.between(2_000, 15_000)
            } else {
                self.between(10, 2_000)
            };
            let word = format!("{:x} ", self.below(0xffff));
            self.say(at, &pieces, &json!({"content": word}), None);
            if self.per_mille(10) {
                self.count(|counts| &mut counts.broken_turns);
                self.after(at, move |_| {
                    // The worker may have hung up.
                    let _ = pieces.send(Err(io::ErrorKind::ConnectionReset.into()));
                });
                return 200;
            }
        }
        let calls = match self.below(10) {
            0..=3 => 0,
            4..=6 => 1,
            7 | 8 => 2,
            _ => 3,
        };
        for index in 0..calls {
            let call = self.make_up_call(index);
            self.say(at, &pieces, &json!({"tool_calls": [call]}), None);
        }
        let end = match (calls, self.below(20)) {
            (_, 0) => "length",
            (0, _) => "stop",
            _ => "tool_calls",
        };
        self.say(at, &pieces, &json!({}), Some(end));
        let (read, written) = (asked.bytes / 4, self.between(1, 300).min(asked.most));
        let usage = json!({"choices": [], "usage": {
            "prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written,
        }});
        self.after(at, move |_| {
            for piece in [line(&usage), "data: [DONE]\n\n".into()] {
                let _ = pieces.send(Ok(piece));
            }
        });
        200
    }

    fn say(&self, at: Millis, pieces: &Pieces, delta: &Value, end: Option<&str>) {
        let chunk = json!({"choices": [{"index": 0, "delta": delta, "finish_reason": end}]});
        let pieces = pieces.clone();
        self.after(at, move |_| {
            let _ = pieces.send(Ok(line(&chunk)));
        });
    }

    fn make_up_call(&self, index: u64) -> Value {
        let name = match self.below(20) {
            0 => "ask",
            1..=5 => "compute",
            6..=9 => "put",
            _ => "pay",
        };
        json!({
            "index": index,
            "id": format!("call_{:x}", self.below(u64::from(u32::MAX))),
            "type": "function",
            "function": {"name": name, "arguments": "{}"},
        })
    }

    /// Checks that the model is shown the recorded messages: all of them, unless the process may
    /// have lost the run.
    fn look_at_transcript(&self, process: ProcessId, Asked { run, shown, .. }: &Asked) {
        let (recorded, must_be_all) = {
            let world = self.world.borrow();
            let Some(row) = world.ledger.rows.get(run) else {
                return;
            };
            let steps = row.steps.iter().filter_map(|step| step.message.as_ref());
            let recorded = row.input.iter().chain(steps);
            let recorded: Vec<Value> = recorded
                .filter_map(|message| serde_json::from_str(message.get()).ok())
                .collect();
            let held_here = row.grants.iter().filter(|grant| grant.holder == process);
            let is_newest = row
                .grants
                .last()
                .is_some_and(|grant| grant.holder == process);
            (recorded, is_newest && held_here.count() == 1)
        };
        if !recorded.starts_with(shown) || must_be_all && recorded != *shown {
            let what = format!("the model is shown {shown:?}, and {recorded:?} is recorded");
            self.accuse(Invariant::I8, *run, what);
        }
    }

    /// Checks that the run was not claimed after its key was revoked.
    fn look_at_key(&self, process: ProcessId, run: RunId) {
        let is_revoked = {
            let world = self.world.borrow();
            let row = world.ledger.rows.get(&run).filter(|row| row.is_metered);
            let claim = row.and_then(|row| row.grants.last());
            let claim = claim.filter(|claim| claim.holder == process);
            let revoked_at = world.ledger.revoked_at;
            claim.is_some_and(|claim| revoked_at.is_some_and(|revoked| revoked < claim.at))
        };
        if is_revoked {
            let what = "its key was revoked before the claim, and the model is asked";
            self.accuse(Invariant::I17, run, what.to_owned());
        }
    }
}

/// A request for a turn.
struct Asked {
    run: RunId,
    /// The messages in it.
    shown: Vec<Value>,
    bytes: u64,
    /// The most tokens of the answer.
    most: u64,
}

impl Asked {
    fn read(request: &Request) -> Option<Self> {
        let run = request.headers().get("x-request-id")?.to_str().ok()?;
        let bytes = request.body()?.as_bytes()?;
        let mut body: Value = serde_json::from_slice(bytes).ok()?;
        let Value::Array(shown) = body["messages"].take() else {
            return None;
        };
        Some(Self {
            run: run.parse().ok()?,
            shown,
            bytes: bytes.len() as u64,
            most: body["max_tokens"].as_u64().unwrap_or(u64::MAX),
        })
    }
}

fn line(chunk: &Value) -> Bytes {
    format!("data: {chunk}\n\n").into()
}
