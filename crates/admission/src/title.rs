//! The run that asks a model for the title of a thread: one turn, without an agent and tools, which is not
//! kept.

use baton_nats::JobHeaders;
use baton_protocol::{AgentRef, Lane, RawFields, RunId, RunLimits, RunSpec, ThreadId};
use baton_store::{Accept, NewRun, OnBusy};
use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};

use crate::error::SubmitError;
use crate::grant::Grant;
use crate::route_check::check_route;
use crate::submit::{Admission, PublishOutcome, Sender};

/// The most characters of a message that a title is made from.
const MOST_READ: usize = 2_000;
const WISH: &str = "Write a title for the conversation that begins with the user's message. It has at most six \
                    words, in the language of the message, on one line, without quotation marks and \
                    without a full stop. Answer with the title alone, and do not answer the message.";

/// A wish for the title of a thread.
#[derive(Debug)]
pub struct TitleWish<'a> {
    /// The thread.
    pub thread: ThreadId,
    /// The model to ask.
    pub model: &'a str,
    /// The beginning of the conversation: see [`title_source`].
    pub text: &'a str,
}

/// Returns the text that a title is made from: the beginning of the first message of a user. `None` if no
/// user wrote a text.
pub fn title_source(messages: &RawValue) -> Option<String> {
    #[derive(Deserialize)]
    struct Message {
        role: String,
        #[serde(default)]
        content: Value,
    }
    let messages: Vec<Message> = serde_json::from_str(messages.get()).ok()?;
    let first = messages
        .into_iter()
        .find(|message| message.role == "user")?;
    let text = match first.content {
        Value::String(text) => text,
        Value::Array(parts) => {
            let texts = parts.iter().filter_map(|part| part["text"].as_str());
            texts.collect::<Vec<_>>().join("\n")
        }
        _ => return None,
    };
    let text: String = text.trim().chars().take(MOST_READ).collect();
    (!text.is_empty()).then_some(text)
}

impl Admission {
    /// Refuses a model that cannot title threads for this caller.
    pub fn check_title_model(&self, grant: &Grant, model: &str) -> Result<(), SubmitError> {
        self.title_spec(grant, model, "x").map(drop)
    }

    /// Accepts the run that asks for a title, and publishes its job. It has the rights and limits of the
    /// sender, and is refused if the thread wants no title by now.
    pub async fn accept_title(
        &self,
        sender: Sender<'_>,
        wish: TitleWish<'_>,
        headers: &JobHeaders,
        run: RunId,
    ) -> Result<PublishOutcome, SubmitError> {
        let rules = self.rules.load_full();
        let mut spec = self.title_spec(sender.grant, wish.model, wish.text)?;
        spec.request_id.clone_from(&headers.request_id);
        let metered = Self::metered(&rules, sender.grant, &spec)?;
        let new_run = NewRun {
            id: run,
            lane: Lane::Background,
            spec: &spec,
            thread_id: None,
            on_busy: OnBusy::default(),
            titles: Some(wish.thread),
            api_key_id: sender.grant.api_key,
            created_by: Some(&sender.actor),
            metered,
            metadata: None,
            cancel_on_disconnect: false,
            traceparent: headers.traceparent.as_deref(),
            idempotency: None,
        };
        match self
            .commit(sender.tenant, &new_run, None, &rules.policy)
            .await?
        {
            Accept::Refused(refusal) => Err(refusal.into()),
            Accept::Created { .. } | Accept::Steered(_) | Accept::Replay(_) => Ok(self
                .publish_job(sender.tenant, new_run.lane, run, headers)
                .await),
        }
    }

    fn title_spec(&self, grant: &Grant, model: &str, text: &str) -> Result<RunSpec, SubmitError> {
        if !grant.allows_model(model) {
            return Err(SubmitError::ModelNotAllowed(model.to_owned()));
        }
        let messages = to_raw_value(&json!([{"role": "user", "content": text}]));
        let spec = RunSpec {
            v: RunSpec::VERSION,
            agent: AgentRef {
                name: String::new(),
                version: 0,
            },
            model: model.to_owned(),
            fallbacks: Vec::new(),
            instructions: Some(WISH.to_owned()),
            messages: messages.unwrap_or_default(),
            tools: None,
            server_tools: Vec::new(),
            calls: Vec::new(),
            params: RawFields::default(),
            shown_for_good: false,
            response: None,
            compaction: None,
            request_id: None,
            limits: RunLimits::of_turns(1),
        };
        check_route(&spec, &self.rules.load().routes)?;
        Ok(spec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(messages: &Value) -> Option<String> {
        title_source(&to_raw_value(messages).unwrap())
    }

    #[test]
    fn a_title_is_made_from_the_first_text_of_a_user() {
        let said = json!([
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "  How do I get to Rome? "},
            {"role": "user", "content": "And back?"},
        ]);
        assert_eq!(source(&said).as_deref(), Some("How do I get to Rome?"));
        let image = json!({"type": "image_url", "image_url": {"url": "data:,x"}});
        let parts =
            json!([{"role": "user", "content": [image, {"type": "text", "text": "Where?"}]}]);
        assert_eq!(source(&parts).as_deref(), Some("Where?"));
        for without in [
            json!([{"role": "user", "content": [image]}]),
            json!([{"role": "user", "content": " "}, {"role": "user", "content": "x"}]),
            json!([{"role": "user"}]),
            json!([{"role": "assistant", "content": "Hello"}]),
        ] {
            assert_eq!(source(&without), None, "{without}");
        }
        let long = json!([{"role": "user", "content": "ö".repeat(9_000)}]);
        let long = source(&long).unwrap();
        assert_eq!(long.chars().count(), MOST_READ);
    }
}
