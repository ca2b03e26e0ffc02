//! The content of a message: a text, or parts of several kinds.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::ChunkDelta;
use crate::lenient::{Fields, RawField, elements, text_of};

/// The fields with the text of the kinds of parts.
const WORDS: [&str; 7] = [
    "text",
    "thinking",
    "reasoning",
    "refusal",
    "content",
    "summary",
    "value",
];

impl<'a> ChunkDelta<'a> {
    /// Adds content of any shape.
    pub(super) fn add_content(&mut self, json: &'a RawValue) {
        if let Some(text) = text_of(json) {
            append(&mut self.content, text);
            return;
        }
        for part in elements(json) {
            match Fields::of(part) {
                Some(fields) => self.add_part(part, &fields),
                None => {
                    if let Some(text) = text_of(part) {
                        append(&mut self.content, text);
                    }
                }
            }
        }
    }

    fn add_part(&mut self, part: &'a RawValue, fields: &Fields<'a>) {
        let kind = fields.get("type").and_then(text_of);
        let into = match kind.as_deref() {
            Some("text" | "output_text") => &mut self.content,
            None if fields.get("text").is_some() => &mut self.content,
            Some("thinking" | "reasoning" | "reasoning_text" | "reasoning_content") => {
                &mut self.reasoning
            }
            Some("refusal") => &mut self.refusal,
            kind => {
                // Most clients look for pictures in this field.
                let is_picture = kind == Some("image_url");
                let name = if is_picture {
                    "images"
                } else {
                    "content_parts"
                };
                let name = name.into();
                self.parts.push(RawField { name, json: part });
                return;
            }
        };
        if let Some(text) = words(fields) {
            append(into, text);
        }
    }
}

/// Returns the text of a part.
fn words<'a>(fields: &Fields<'a>) -> Option<Cow<'a, str>> {
    WORDS
        .iter()
        .find_map(|name| fields.get(name).and_then(plain))
}

/// Returns text of any shape: a text, a part, or a list of either.
pub(super) fn plain(json: &RawValue) -> Option<Cow<'_, str>> {
    if let Some(text) = text_of(json) {
        return Some(text);
    }
    let mut all = None;
    for part in elements(json) {
        let text = match Fields::of(part) {
            // A part within a part is as deep as any upstream goes.
            Some(fields) => WORDS
                .iter()
                .find_map(|name| fields.get(name).and_then(text_of)),
            None => text_of(part),
        };
        if let Some(text) = text {
            append(&mut all, text);
        }
    }
    all
}

fn append<'a>(to: &mut Option<Cow<'a, str>>, text: Cow<'a, str>) {
    match to {
        Some(present) => present.to_mut().push_str(&text),
        None => *to = Some(text),
    }
}
