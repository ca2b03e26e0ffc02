//! A strict reader of response streams and objects, for tests: it accepts what the wire's schema
//! allows and nothing else.

mod objects;

use std::fmt;

use serde_json::{Map, Value};

use self::objects::check_part;
pub use self::objects::{check_item, check_response};

/// A breach of the wire's schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breach(pub String);

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Breach {}

type Checked<T = ()> = Result<T, Breach>;

fn breach<T>(what: impl Into<String>) -> Checked<T> {
    Err(Breach(what.into()))
}

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { breach(what()) }
}

fn fields(value: &Value) -> Checked<&Map<String, Value>> {
    value
        .as_object()
        .ok_or_else(|| Breach(format!("{value} is no object")))
}

fn text<'a>(object: &'a Map<String, Value>, key: &str) -> Checked<&'a str> {
    object
        .get(key)
        .and_then(Value::as_str)
        .ok_or_else(|| Breach(format!("`{key}` is no text in {object:?}")))
}

fn number(object: &Map<String, Value>, key: &str) -> Checked<u64> {
    object
        .get(key)
        .and_then(Value::as_u64)
        .ok_or_else(|| Breach(format!("`{key}` is no whole number in {object:?}")))
}

fn list<'a>(object: &'a Map<String, Value>, key: &str) -> Checked<&'a Vec<Value>> {
    object
        .get(key)
        .and_then(Value::as_array)
        .ok_or_else(|| Breach(format!("`{key}` is no list in {object:?}")))
}

/// An item as a client gathers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gathered {
    /// Its id.
    pub id: String,
    /// Its type.
    pub kind: String,
    /// Its parts' texts, or a call's arguments.
    pub texts: Vec<String>,
    done_texts: usize,
    done_parts: usize,
    /// Its last status; `None` while it is open.
    pub done: Option<String>,
}

/// A reader of one stream.
#[derive(Debug, Default)]
pub struct StreamChecker {
    last_number: Option<u64>,
    seen: Vec<String>,
    /// The items so far, by index.
    pub items: Vec<Gathered>,
    /// The last response object.
    pub response: Option<Value>,
    ended: bool,
}

impl StreamChecker {
    /// Reads frames, each with the name of its event and its data.
    pub fn read(frames: &str) -> Checked<Self> {
        let mut checker = Self::default();
        for (name, data) in split_frames(frames)? {
            checker.take(name, &data)?;
        }
        Ok(checker)
    }

    /// Checks that the stream has ended as it must.
    pub fn finish(&self) -> Checked {
        ensure(self.ended, || "the stream has no last event".to_owned())?;
        ensure(self.items.iter().all(|item| item.done.is_some()), || {
            format!("an item is open at the end: {:?}", self.items)
        })
    }

    /// Reads one event.
    pub fn take(&mut self, name: &str, data: &Value) -> Checked {
        ensure(!self.ended, || format!("{name} after the end"))?;
        let data = fields(data)?;
        let kind = text(data, "type")?;
        ensure(kind == name, || format!("the event {name} has type {kind}"))?;
        let number = number(data, "sequence_number")?;
        ensure(self.last_number.is_none_or(|last| last < number), || {
            format!("{number} after {:?}", self.last_number)
        })?;
        self.last_number = Some(number);
        let first = self.seen.is_empty();
        ensure(first == (kind == "response.created"), || {
            format!("{kind} at the place of response.created")
        })?;
        self.seen.push(kind.to_owned());
        match kind {
            "response.created"
            | "response.queued"
            | "response.in_progress"
            | "response.completed"
            | "response.failed"
            | "response.incomplete" => self.whole(kind, data),
            "error" => {
                text(data, "message")?;
                text(fields(&data["error"])?, "message")?;
                ensure(
                    data.contains_key("code") && data.contains_key("param"),
                    || "an error has a code and a param".to_owned(),
                )?;
                self.ended = true;
                Ok(())
            }
            "response.output_item.added" => self.added(data),
            "response.output_item.done" => self.item_done(data),
            "response.content_part.added" | "response.content_part.done" => self.part(kind, data),
            _ => self.text(kind, data),
        }
    }

    fn whole(&mut self, kind: &str, data: &Map<String, Value>) -> Checked {
        let response = &data["response"];
        check_response(response)?;
        let status = text(fields(response)?, "status")?;
        let fits = match kind {
            "response.created" => matches!(status, "queued" | "in_progress"),
            "response.incomplete" => matches!(status, "incomplete" | "cancelled"),
            other => other.strip_prefix("response.") == Some(status),
        };
        ensure(fits, || format!("{kind} with the status {status}"))?;
        self.ended = matches!(
            kind,
            "response.completed" | "response.failed" | "response.incomplete"
        );
        self.response = Some(response.clone());
        Ok(())
    }

    fn added(&mut self, data: &Map<String, Value>) -> Checked {
        let index = number(data, "output_index")?;
        ensure(index == self.items.len() as u64, || {
            format!("the index {index} of item {}", self.items.len())
        })?;
        check_item(&data["item"])?;
        let item = fields(&data["item"])?;
        let id = text(item, "id")?.to_owned();
        ensure(self.items.iter().all(|known| known.id != id), || {
            format!("two items have the id {id}")
        })?;
        let kind = text(item, "type")?.to_owned();
        let texts = if matches!(&*kind, "function_call" | "mcp_call") {
            vec![text(item, "arguments")?.to_owned()]
        } else {
            Vec::new()
        };
        ensure(texts.iter().all(String::is_empty), || {
            "a call opens with arguments".to_owned()
        })?;
        self.items.push(Gathered {
            id,
            kind,
            texts,
            done_texts: 0,
            done_parts: 0,
            done: None,
        });
        Ok(())
    }

    fn open(&mut self, data: &Map<String, Value>) -> Checked<&mut Gathered> {
        let index = usize::try_from(number(data, "output_index")?).unwrap_or(usize::MAX);
        let Some(item) = self.items.get_mut(index) else {
            return breach(format!("there is no item {index}"));
        };
        ensure(item.done.is_none(), || format!("item {index} is done"))?;
        if let Some(id) = data.get("item_id") {
            ensure(id == &*item.id, || format!("item {index} is not {id}"))?;
        }
        Ok(item)
    }

    fn item_done(&mut self, data: &Map<String, Value>) -> Checked {
        check_item(&data["item"])?;
        let done = fields(&data["item"])?;
        let id = text(done, "id")?;
        // A compaction is whole from its beginning, and has none.
        let status = match text(done, "type")? {
            "compaction" | "mcp_list_tools" | "mcp_approval_request" => "completed",
            _ => text(done, "status")?,
        };
        let texts: Vec<String> = match text(done, "type")? {
            "function_call" | "mcp_call" => vec![text(done, "arguments")?.to_owned()],
            "function_call_output" | "compaction" | "mcp_list_tools" | "mcp_approval_request" => {
                Vec::new()
            }
            _ => list(done, "content")?
                .iter()
                .filter_map(|part| part.get("text").or_else(|| part.get("refusal")))
                .filter_map(|text| text.as_str().map(str::to_owned))
                .collect(),
        };
        let item = self.open(data)?;
        ensure(item.id == id, || format!("{id} is not {}", item.id))?;
        ensure(item.texts == texts, || {
            format!("{id} ends as {texts:?} and was {:?}", item.texts)
        })?;
        ensure(item.done_texts == item.texts.len(), || {
            format!("a text of {id} is not done")
        })?;
        ensure(
            matches!(&*item.kind, "function_call" | "mcp_call")
                || item.done_parts == item.texts.len(),
            || format!("a part of {id} is not done"),
        )?;
        ensure(status != "in_progress", || format!("{id} is in progress"))?;
        item.done = Some(status.to_owned());
        Ok(())
    }

    fn part(&mut self, kind: &str, data: &Map<String, Value>) -> Checked {
        check_part(&data["part"])?;
        let index = number(data, "content_index")?;
        let item = self.open(data)?;
        if kind.ends_with("added") {
            ensure(index == item.texts.len() as u64, || {
                format!("the part {index} of {}", item.texts.len())
            })?;
            item.texts.push(String::new());
        } else {
            ensure(index == item.done_parts as u64, || {
                format!("the part {index} is done after {}", item.done_parts)
            })?;
            item.done_parts += 1;
        }
        Ok(())
    }

    /// Reads an event that says no more than how far an item is.
    fn progress(&mut self, data: &Map<String, Value>, of: &str) -> Checked {
        text(data, "item_id")?;
        let item = self.open(data)?;
        ensure(item.kind == of, || format!("progress of a {}", item.kind))
    }

    fn text(&mut self, kind: &str, data: &Map<String, Value>) -> Checked {
        let (whole_key, of) = match kind {
            "response.output_text.delta" | "response.output_text.done" => {
                list(data, "logprobs")?;
                ("text", "message")
            }
            "response.reasoning_text.delta" | "response.reasoning_text.done" => {
                ("text", "reasoning")
            }
            "response.refusal.delta" | "response.refusal.done" => ("refusal", "message"),
            "response.function_call_arguments.delta" | "response.function_call_arguments.done" => {
                ("arguments", "function_call")
            }
            "response.mcp_call_arguments.delta" | "response.mcp_call_arguments.done" => {
                ("arguments", "mcp_call")
            }
            "response.mcp_call.in_progress"
            | "response.mcp_call.completed"
            | "response.mcp_call.failed" => return self.progress(data, "mcp_call"),
            "response.mcp_list_tools.in_progress"
            | "response.mcp_list_tools.completed"
            | "response.mcp_list_tools.failed" => return self.progress(data, "mcp_list_tools"),
            other => return breach(format!("the event type {other}")),
        };
        let part = match of {
            "function_call" | "mcp_call" => 0,
            _ => usize::try_from(number(data, "content_index")?).unwrap_or(usize::MAX),
        };
        let item = self.open(data)?;
        ensure(item.kind == of, || format!("{kind} in a {}", item.kind))?;
        let Some(gathered) = item.texts.get_mut(part) else {
            return breach(format!("{kind} of a part that is not open"));
        };
        if data.contains_key("delta") {
            gathered.push_str(text(data, "delta")?);
            return Ok(());
        }
        let whole = text(data, whole_key)?;
        ensure(gathered == whole, || {
            format!("{kind} says {whole} after {gathered}")
        })?;
        item.done_texts += 1;
        Ok(())
    }
}

/// Splits a stream into its frames: the name of each event and its data. Comments are left out.
pub fn split_frames(frames: &str) -> Checked<Vec<(&str, Value)>> {
    let mut split = Vec::new();
    for frame in frames.split_terminator("\n\n") {
        if frame.starts_with(':') {
            continue;
        }
        let parts = frame
            .strip_prefix("event: ")
            .and_then(|frame| frame.split_once("\ndata: "));
        let Some((name, data)) = parts else {
            return breach(format!("not a frame: {frame:?}"));
        };
        let data = serde_json::from_str(data).map_err(|error| Breach(error.to_string()))?;
        split.push((name, data));
    }
    Ok(split)
}
