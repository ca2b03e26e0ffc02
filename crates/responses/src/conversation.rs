//! Conversations: the bodies of `/v1/conversations`, and its objects.

use std::collections::BTreeMap;

use baton_protocol::{RawFields, ThreadId};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::Invalid;
use crate::ids::conversation_id;
use crate::items::{Item, read_item};
use crate::read::{At, Object};
use crate::request::read_metadata;
use crate::response::Metadata;

/// The most items of one request.
const MOST_ITEMS: usize = 20;

/// The body of `POST /v1/conversations`.
#[derive(Debug)]
pub struct CreateConversation {
    /// The first items, without ids.
    pub items: Vec<Item>,
    /// The client's data, an object of texts.
    pub metadata: Option<RawFields>,
}

impl CreateConversation {
    /// Reads a body. The caller has checked its depth and its number of values.
    pub fn parse(body: &[u8]) -> Result<Self, Invalid> {
        let mut object = At::body(body)?.object()?;
        let items = object.take("items").map(|at| read_items(&at));
        let created = Self {
            items: items.transpose()?.unwrap_or_default(),
            metadata: take_metadata(&mut object)?,
        };
        object.finish()?;
        Ok(created)
    }
}

/// The body of `POST /v1/conversations/{id}`.
#[derive(Debug)]
pub struct ChangeConversation {
    /// The client's new data, an object of texts; `None` clears them.
    pub metadata: Option<RawFields>,
}

impl ChangeConversation {
    /// Reads a body. The caller has checked its depth and its number of values.
    pub fn parse(body: &[u8]) -> Result<Self, Invalid> {
        let mut object = At::body(body)?.object()?;
        if !object.has("metadata") {
            let message = "`metadata` is missing: it replaces the conversation's";
            return Err(Invalid::field("missing_field", "metadata", message));
        }
        let metadata = take_metadata(&mut object)?;
        object.finish()?;
        Ok(Self { metadata })
    }
}

/// The body of `POST /v1/conversations/{id}/items`.
#[derive(Debug)]
pub struct AddItems {
    /// The items, without ids.
    pub items: Vec<Item>,
}

impl AddItems {
    /// Reads a body. The caller has checked its depth and its number of values.
    pub fn parse(body: &[u8]) -> Result<Self, Invalid> {
        let mut object = At::body(body)?.object()?;
        let at = object.need("items")?;
        let items = read_items(&at)?;
        if items.is_empty() {
            return Err(at.must_be("an array of at least one item"));
        }
        object.finish()?;
        Ok(Self { items })
    }
}

fn read_items(at: &At<'_>) -> Result<Vec<Item>, Invalid> {
    let items = at.array()?;
    if items.len() > MOST_ITEMS {
        let message = format!(
            "`{}` has {} items; one request adds at most {MOST_ITEMS}: send the others in another",
            at.path,
            items.len()
        );
        return Err(Invalid::field("invalid_value", &*at.path, message));
    }
    items.iter().map(read_item).collect()
}

/// Takes the client's data. They are searched in the ledger, which takes no NUL.
fn take_metadata(object: &mut Object<'_>) -> Result<Option<RawFields>, Invalid> {
    let Some(at) = object.take("metadata") else {
        return Ok(None);
    };
    let fields = read_metadata(&at)?;
    let texts: BTreeMap<String, String> =
        serde_json::from_str(at.json.get()).map_err(|_| at.must_be("an object of texts"))?;
    let has_nul = |(name, text): (&String, &String)| name.contains('\0') || text.contains('\0');
    if texts.iter().any(has_nul) {
        let message = "`metadata` holds a NUL character: leave it out";
        return Err(Invalid::field("invalid_metadata", "metadata", message));
    }
    Ok(Some(fields))
}

/// A conversation as this wire shows it.
#[derive(Debug, Serialize)]
pub struct ConversationObject<'a> {
    id: String,
    object: &'static str,
    created_at: i64,
    metadata: Metadata<'a>,
}

impl<'a> ConversationObject<'a> {
    /// Makes the object of a thread; `created_at` is in seconds since 1970.
    pub fn new(thread: ThreadId, created_at: i64, metadata: Option<&'a RawValue>) -> Self {
        Self {
            id: conversation_id(thread),
            object: "conversation",
            created_at,
            metadata: metadata.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_field() {
        let many = format!(r#"{{"items":[{}]}}"#, ["7"; 21].join(","));
        for (body, param) in [
            (r#"{"items":{}}"#, "items"),
            (&*many, "items"),
            (
                r#"{"items":[{"role":"robot","content":"x"}]}"#,
                "items[0].role",
            ),
            (r#"{"items":[{"type":"web_search_call"}]}"#, "items[0].type"),
            (r#"{"items":[{"type":"poem"}]}"#, "items[0].type"),
            (r#"{"metadata":{"a":1}}"#, "metadata.a"),
            (r#"{"metadata":{"a":"\u0000"}}"#, "metadata"),
            (r#"{"colour":1}"#, "colour"),
        ] {
            let error = CreateConversation::parse(body.as_bytes()).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(param), "{body}: {error}");
        }
        for body in [r#"{"items":[]}"#, "{}"] {
            let error = AddItems::parse(body.as_bytes()).unwrap_err();
            assert_eq!(error.param.as_deref(), Some("items"), "{body}: {error}");
        }
        for (body, param) in [("{}", Some("metadata")), ("[]", None)] {
            let error = ChangeConversation::parse(body.as_bytes()).unwrap_err();
            assert_eq!(error.param.as_deref(), param, "{body}: {error}");
        }
        let cleared = ChangeConversation::parse(br#"{"metadata":null}"#).unwrap();
        assert!(cleared.metadata.is_none());
        assert!(CreateConversation::parse(b"{}").unwrap().items.is_empty());
    }
}
