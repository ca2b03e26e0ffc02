//! A model's answer as an upstream streams it: frames, chunks, and the resulting message.

use std::collections::BTreeMap;

use baton_openai::{ChatAccumulator, ChatChunk, Content, Delta, SseDecoder};
use bytes::Bytes;

use crate::splits::splits;

/// Far above the size of a test's input.
const LIMIT: usize = 1 << 20;

/// Checks that the shown pieces agree with the message, and that both are the same however the
/// stream is cut.
pub fn model_stream(data: &[u8]) {
    let [whole, others @ ..] = splits(data);
    let first = read(&whole);
    for pieces in others {
        assert_eq!(read(&pieces), first);
    }
}

/// Returns all shown pieces, and the message as JSON.
fn read(pieces: &[&[u8]]) -> (Vec<Delta>, String) {
    let mut decoder = SseDecoder::new(LIMIT);
    let mut answer = ChatAccumulator::new("call_", LIMIT);
    let mut deltas = Vec::new();
    'stream: for piece in pieces {
        decoder.push(Bytes::copy_from_slice(piece));
        while let Ok(Some(event)) = decoder.next_event() {
            // An invalid chunk ends the turn, as an error in its place does.
            let Ok(chunk) = serde_json::from_slice::<ChatChunk<'_>>(&event.data) else {
                break 'stream;
            };
            if answer.fold(chunk, &mut deltas).is_err() {
                break 'stream;
            }
        }
    }
    let content = answer.content().to_owned();
    let message = answer.into_partial();
    let shown = Shown::of(&deltas);
    assert_eq!(shown.text, content);
    let said = match &message.content {
        Some(Content::Text(text)) => text.as_str(),
        _ => "",
    };
    assert_eq!(shown.text, said);
    let word = |name: &str| message.rest.get(name).and_then(|value| value.as_str());
    for (name, text) in [
        ("reasoning_content", &shown.reasoning),
        ("refusal", &shown.refusal),
    ] {
        assert_eq!(word(name).unwrap_or_default(), text, "{name}");
    }
    let calls = message.tool_calls.as_deref().unwrap_or_default();
    assert_eq!(shown.calls.len(), calls.len());
    for ((id, name, arguments), call) in shown.calls.values().zip(calls) {
        assert_eq!((id, name.as_str()), (&call.id, call.name()));
        assert_eq!(arguments, call.arguments());
    }
    let message = serde_json::to_string(&message).expect("a message is JSON");
    (deltas, message)
}

#[derive(Default)]
struct Shown {
    text: String,
    reasoning: String,
    refusal: String,
    /// The id, name and arguments of each.
    calls: BTreeMap<u32, (String, String, String)>,
}

impl Shown {
    fn of(deltas: &[Delta]) -> Self {
        let mut shown = Self::default();
        for delta in deltas {
            match delta {
                Delta::Text(text) => shown.text.push_str(text),
                Delta::Reasoning(text) => shown.reasoning.push_str(text),
                Delta::Refusal(text) => shown.refusal.push_str(text),
                Delta::Field { json, .. } => {
                    serde_json::from_str::<serde_json::Value>(json).expect("a field is JSON");
                }
                Delta::ToolCall {
                    index,
                    id,
                    name,
                    arguments,
                } => {
                    let first = !shown.calls.contains_key(index);
                    assert_eq!(id.is_some(), first, "an id comes first and only then");
                    assert_eq!(name.is_some(), first, "a name comes first and only then");
                    let call = shown.calls.entry(*index).or_default();
                    call.0.extend(id.clone());
                    call.1.extend(name.clone());
                    call.2.push_str(arguments);
                }
            }
        }
        shown
    }
}
