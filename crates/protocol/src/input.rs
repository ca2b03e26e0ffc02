//! A call that a tool's server has left without a result: it asks a person for something first, or goes on with a
//! task of its own.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use crate::approval::Decision;

/// The state in which a server has left a call. It is kept with the call's step, so that any worker goes on
/// with the call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum CallPause {
    /// The server wants the call again, with the answers of a person if it asks for any.
    Input {
        /// The questions.
        asked: RequestedInput,
        /// The server's own state, which goes back to it as it is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        state: Option<String>,
    },
    /// The server goes on with the call by itself, and is asked for the result from time to time.
    Task {
        /// The task.
        task: RemoteTask,
    },
}

/// A task of a tool's server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteTask {
    /// The server's name for it.
    pub id: String,
    /// The time at which the server took the call, by the clock of a worker.
    pub since: DateTime<Utc>,
    /// The time at which the call is given up.
    pub until: DateTime<Utc>,
    /// The time until the server is asked again, in milliseconds.
    pub poll_ms: u64,
    /// The number of times that the task has asked a person.
    #[serde(default)]
    pub rounds: u32,
    /// The questions that wait for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<RequestedInput>,
    /// The questions that the server has the answers of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub answered: Vec<String>,
}

impl CallPause {
    /// Returns the questions that a person must answer before the call goes on.
    pub fn asked(&self) -> Option<&RequestedInput> {
        match self {
            Self::Input { asked, .. } => Some(asked).filter(|asked| !asked.requests.is_empty()),
            Self::Task { task } => task.asked.as_ref(),
        }
    }

    /// Returns the task, if the server goes on by itself.
    pub const fn task(&self) -> Option<&RemoteTask> {
        match self {
            Self::Input { .. } => None,
            Self::Task { task } => Some(task),
        }
    }
}

impl RemoteTask {
    /// The time after which a task is given up that has no end of its own.
    pub const LONGEST: Duration = Duration::from_hours(7 * 24);
    /// The shortest time between two questions about a task.
    const SHORTEST_POLL: Duration = Duration::from_millis(500);
    /// The longest time between two questions about a task.
    const LONGEST_POLL: Duration = Duration::from_mins(5);

    /// Makes a task that the server has just taken.
    pub const fn new(id: String, now: DateTime<Utc>) -> Self {
        Self {
            id,
            since: now,
            until: now,
            poll_ms: 0,
            rounds: 0,
            asked: None,
            answered: Vec::new(),
        }
    }

    /// Notes what the server says about the times of the task. It is asked at most as often as it wants, and less
    /// often the older the task is: every question is an attempt at the run.
    #[must_use]
    pub fn timed(
        mut self,
        now: DateTime<Utc>,
        wish: Option<Duration>,
        ttl: Option<Duration>,
    ) -> Self {
        let age = (now - self.since).to_std().unwrap_or_default();
        let wished = wish.unwrap_or(Duration::from_secs(1)).max(age / 8);
        let poll = wished.clamp(Self::SHORTEST_POLL, Self::LONGEST_POLL);
        self.poll_ms = u64::try_from(poll.as_millis()).unwrap_or(u64::MAX);
        self.until = self.since + ttl.unwrap_or(Self::LONGEST).min(Self::LONGEST);
        self
    }
}

/// The input that the server of a tool asks a person for, in the middle of a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RequestedInput {
    /// The number of times that the server has left the call so, from 1.
    pub round: u32,
    /// The server's questions. One decision answers them all.
    pub requests: Vec<InputRequest>,
}

/// A question of a tool's server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InputRequest {
    /// The server's name for it.
    pub id: String,
    /// The text for the person.
    pub message: String,
    /// The JSON Schema of the answer; left out if the person visits `url` instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub schema: Option<Map<String, Value>>,
    /// The address that the person visits; left out if there is a `schema`. Baton does not open it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

impl RequestedInput {
    /// Returns the schema that the content of an answer must match; `None` if it takes no content. The content
    /// for several questions is an object with a member for each, by its id.
    pub fn schema(&self) -> Option<Value> {
        if let [only] = &self.requests[..] {
            return only.schema.clone().map(Value::Object);
        }
        let forms = self.requests.iter().filter_map(|request| {
            let schema = request.schema.clone()?;
            Some((request.id.clone(), Value::Object(schema)))
        });
        let forms: Map<String, Value> = forms.collect();
        let ids: Vec<_> = forms.keys().cloned().collect();
        (!ids.is_empty()).then(|| {
            json!({"type": "object", "properties": forms, "required": ids, "additionalProperties": false})
        })
    }

    /// Returns a content with the defaults of the schemas in place of fields that are left out; `None` if the
    /// question takes no content.
    pub fn filled(&self, content: Option<&Map<String, Value>>) -> Option<Map<String, Value>> {
        self.schema()?;
        let mut content = content.cloned().unwrap_or_default();
        if let [only] = &self.requests[..] {
            if let Some(schema) = &only.schema {
                fill(&mut content, schema);
            }
            return Some(content);
        }
        for request in &self.requests {
            let Some(schema) = &request.schema else {
                continue;
            };
            let answer = content
                .entry(request.id.clone())
                .or_insert_with(|| json!({}));
            if let Value::Object(answer) = answer {
                fill(answer, schema);
            }
        }
        Some(content)
    }

    /// Returns the answer to each question, by its id, in the form of MCP. A missing decision cancels.
    pub fn answers(&self, given: Option<&Decision>) -> Vec<(String, Value)> {
        let action = match given {
            Some(Decision::Accept { .. }) => "accept",
            Some(Decision::Decline {}) => "decline",
            _ => "cancel",
        };
        let content = given.and_then(Decision::content);
        let answer = |request: &InputRequest| {
            let mut answer = json!({ "action": action });
            let of_it = if self.requests.len() == 1 {
                content.cloned().map(Value::Object)
            } else {
                content.and_then(|content| content.get(&request.id).cloned())
            };
            if let Some(content) = of_it.filter(|_| request.schema.is_some()) {
                answer["content"] = content;
            }
            (request.id.clone(), answer)
        };
        self.requests.iter().map(answer).collect()
    }
}

/// Adds the defaults of a schema's properties to an object that lacks them.
fn fill(content: &mut Map<String, Value>, schema: &Map<String, Value>) {
    let properties = schema.get("properties").and_then(Value::as_object);
    for (name, property) in properties.into_iter().flatten() {
        if let Some(default) = property.get("default")
            && !content.contains_key(name)
        {
            content.insert(name.clone(), default.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(id: &str, field: &str) -> InputRequest {
        let schema = json!({"type": "object", "properties": {
            field: {"type": "string"}, "times": {"type": "integer", "default": 2}}, "required": [field]});
        InputRequest {
            id: id.to_owned(),
            message: "?".to_owned(),
            schema: schema.as_object().cloned(),
            url: None,
        }
    }

    fn page(id: &str) -> InputRequest {
        InputRequest {
            id: id.to_owned(),
            message: "?".to_owned(),
            schema: None,
            url: Some("https://example.org/".to_owned()),
        }
    }

    fn object(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(fields) => fields,
            other => panic!("{other}"),
        }
    }

    fn accept(content: Value) -> Decision {
        Decision::Accept {
            content: Some(object(content)),
        }
    }

    #[test]
    fn the_content_for_one_question_is_its_answer_and_defaults_fill_it() {
        let one = RequestedInput {
            round: 1,
            requests: vec![form("who", "name")],
        };
        assert_eq!(one.schema().unwrap()["required"], json!(["name"]));
        let filled = one.filled(Some(&object(json!({"name": "Ada"})))).unwrap();
        assert_eq!(Value::Object(filled), json!({"name": "Ada", "times": 2}));
        let kept = one.filled(Some(&object(json!({"times": 5})))).unwrap();
        assert_eq!(Value::Object(kept), json!({"times": 5}));
        assert_eq!(
            one.answers(Some(&accept(json!({"name": "Ada"})))),
            [(
                "who".to_owned(),
                json!({"action": "accept", "content": {"name": "Ada"}})
            )]
        );
        for (given, action) in [
            (Some(Decision::Decline {}), "decline"),
            (Some(Decision::Cancel {}), "cancel"),
            (None, "cancel"),
        ] {
            let answers = one.answers(given.as_ref());
            assert_eq!(answers, [("who".to_owned(), json!({ "action": action }))]);
        }
    }

    #[test]
    fn the_content_for_several_questions_has_a_member_for_each_form() {
        let all = RequestedInput {
            round: 1,
            requests: vec![form("who", "name"), page("pay"), form("where", "town")],
        };
        let schema = all.schema().unwrap();
        assert_eq!(schema["required"], json!(["where", "who"]));
        let content = object(json!({"who": {"name": "Ada"}, "where": {"town": "Ulm", "times": 1}}));
        let filled = all.filled(Some(&content)).unwrap();
        assert_eq!(
            Value::Object(filled.clone()),
            json!({"who": {"name": "Ada", "times": 2}, "where": {"town": "Ulm", "times": 1}})
        );
        let given = Decision::Accept {
            content: Some(filled),
        };
        let answers = all.answers(Some(&given));
        assert_eq!(answers[1].1, json!({"action": "accept"}));
        assert_eq!(answers[2].1["content"]["town"], "Ulm");
    }

    #[test]
    fn a_task_is_asked_about_less_often_the_older_it_is() {
        let start = DateTime::UNIX_EPOCH;
        let poll = |age: u64, wish: Option<u64>| {
            let task = RemoteTask::new("t".to_owned(), start);
            let now = start + Duration::from_secs(age);
            let timed = task.timed(now, wish.map(Duration::from_millis), None);
            assert_eq!(timed.until, start + RemoteTask::LONGEST);
            timed.poll_ms
        };
        for (age, wish, ms) in [
            (0, None, 1_000),
            (0, Some(1), 500),
            (0, Some(20_000), 20_000),
            (80, Some(1), 10_000),
            (0, Some(u64::MAX), 300_000),
            (1_000_000, None, 300_000),
        ] {
            assert_eq!(poll(age, wish), ms, "{age} s, {wish:?}");
        }
        let task = RemoteTask::new("t".to_owned(), start);
        let short = task.timed(start, None, Some(Duration::from_secs(9)));
        assert_eq!(short.until, start + Duration::from_secs(9));
    }

    #[test]
    fn a_question_that_only_shows_an_address_takes_no_content() {
        let one = RequestedInput {
            round: 1,
            requests: vec![page("pay")],
        };
        assert_eq!((one.schema(), one.filled(None)), (None, None));
        let given = Decision::Accept { content: None };
        let answers = one.answers(Some(&given));
        assert_eq!(answers, [("pay".to_owned(), json!({"action": "accept"}))]);
    }
}
