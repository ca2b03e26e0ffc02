//! The fields for the upstream, in the words of the chat API.

use baton_protocol::RawFields;
use serde_json::json;
use serde_json::value::RawValue;

use crate::Invalid;
use crate::fields::note;
use crate::read::{At, Object, cut};
use crate::tools::raw;

/// The most bytes of all fields that travel to the upstream.
pub(super) const MAX_TRAVELLING_BYTES: usize = 64 * 1024;
/// The most fields that travel to the upstream.
pub(super) const MAX_TRAVELLING_FIELDS: usize = 256;

/// The fields for the upstream, gathered.
#[derive(Default)]
pub(super) struct Params(Vec<(String, Box<RawValue>)>);

impl Params {
    pub(super) fn add(&mut self, name: &str, json: Box<RawValue>) {
        self.0.push((name.to_owned(), json));
    }

    pub(super) fn finish(self) -> Result<RawFields, Invalid> {
        let size = |(name, json): &(String, Box<RawValue>)| name.len() + json.get().len();
        if self.0.len() > MAX_TRAVELLING_FIELDS {
            let message = format!(
                "{} fields are to travel to the upstream, and {MAX_TRAVELLING_FIELDS} may: leave \
                 some out",
                self.0.len()
            );
            return Err(Invalid::body("too_many_fields", message));
        }
        if self.0.iter().map(size).sum::<usize>() > MAX_TRAVELLING_BYTES {
            let largest = self.0.iter().max_by_key(|field| size(field));
            let largest = largest.map_or("", |(name, _)| cut(name));
            let message = format!(
                "the fields other than `input` and `tools` may hold {MAX_TRAVELLING_BYTES} bytes \
                 together, and hold more: shorten `{largest}`"
            );
            return Err(Invalid::field("fields_too_large", largest, message));
        }
        let fields = self
            .0
            .iter()
            .map(|(name, json)| (name.into(), json.as_ref()));
        Ok(RawFields::from_fields(fields))
    }
}

/// Reads `text`; returns it with effective values.
pub(super) fn read_text(
    object: &mut Object<'_>,
    params: &mut Params,
) -> Result<Box<RawValue>, Invalid> {
    let Some(text) = object.take("text") else {
        return Ok(raw(&json!({"format": {"type": "text"}})));
    };
    let mut text = text.object()?;
    let format = match text.take("format") {
        Some(format) => read_format(&format, params)?,
        None => raw(&json!({"type": "text"})),
    };
    let verbosity = match text.take("verbosity") {
        None => None,
        Some(at) => {
            let word = at.string()?;
            if !["low", "medium", "high"].contains(&&*word) {
                return Err(at.one_of(&["low", "medium", "high"]));
            }
            params.add("verbosity", at.json.to_owned());
            Some(at)
        }
    };
    text.finish()?;
    let mut fields = vec![("format".into(), &*format)];
    fields.extend(verbosity.map(|at| ("verbosity".into(), at.json)));
    Ok(RawFields::from_fields(fields).into_raw())
}

fn read_format(format: &At<'_>, params: &mut Params) -> Result<Box<RawValue>, Invalid> {
    let mut fields = format.object()?;
    let kind = fields.need("type")?;
    let shown = match &*kind.string()? {
        "text" => raw(&json!({"type": "text"})),
        "json_object" => {
            let object = raw(&json!({"type": "json_object"}));
            params.add("response_format", object.clone());
            object
        }
        "json_schema" => {
            let name = fields.need("name")?;
            name.string()?;
            let schema = fields.need("schema")?;
            if !schema.is_object() {
                return Err(schema.must_be("an object, the JSON Schema"));
            }
            schema.readable()?;
            let description = fields.take("description");
            description.as_ref().map(At::string).transpose()?;
            let strict = fields.take("strict");
            strict.as_ref().map(At::bool).transpose()?;
            let mut own = vec![("name".into(), name.json)];
            own.extend(
                description
                    .as_ref()
                    .map(|at| ("description".into(), at.json)),
            );
            own.push(("schema".into(), schema.json));
            own.extend(strict.as_ref().map(|at| ("strict".into(), at.json)));
            let own = RawFields::from_fields(own);
            let chat = [
                ("type".into(), &*raw("json_schema")),
                ("json_schema".into(), own.as_raw()),
            ];
            params.add("response_format", RawFields::from_fields(chat).into_raw());
            // All keys are shown, with effective values.
            let (kind, none, lax) = (raw("json_schema"), raw(&()), raw(&false));
            let shown = [
                ("type".into(), &*kind),
                ("name".into(), name.json),
                (
                    "description".into(),
                    description.as_ref().map_or(&*none, |at| at.json),
                ),
                ("schema".into(), schema.json),
                ("strict".into(), strict.as_ref().map_or(&*lax, |at| at.json)),
            ];
            RawFields::from_fields(shown).into_raw()
        }
        _ => return Err(kind.one_of(&["text", "json_object", "json_schema"])),
    };
    fields.finish()?;
    Ok(shown)
}

/// Settings of reasoning, as the client wrote them.
#[derive(Default)]
pub(super) struct Reasoning {
    pub(super) effort: Option<String>,
    pub(super) summary: Option<String>,
}

const SUMMARIES: [&str; 3] = ["auto", "concise", "detailed"];

pub(super) fn read_reasoning(
    object: &mut Object<'_>,
    params: &mut Params,
) -> Result<Reasoning, Invalid> {
    let Some(reasoning) = object.take("reasoning") else {
        return Ok(Reasoning::default());
    };
    let mut reasoning = reasoning.object()?;
    for name in ["generate_summary", "context", "mode"] {
        if let Some(at) = reasoning.take(name) {
            let note = note(&at.path);
            return Err(at.unsupported(&format!("is refused. {note}")));
        }
    }
    let (effort, summary) = (reasoning.take("effort"), reasoning.take("summary"));
    reasoning.finish()?;
    let mut read = Reasoning::default();
    if let Some(at) = effort {
        read.effort = Some(at.string()?);
        params.add("reasoning_effort", at.json.to_owned());
    }
    if let Some(at) = summary {
        let word = at.string()?;
        if !SUMMARIES.contains(&&*word) {
            return Err(at.one_of(&SUMMARIES));
        }
        params.add("reasoning", raw(&json!({"summary": word})));
        read.summary = Some(word);
    }
    Ok(read)
}
