//! The calls of a message, joined from their fragments.

use super::{AccumulateError, Delta};
use crate::lenient::value_of;
use crate::{ChunkFunction, ChunkToolCall, ToolCall};

/// The most calls of a message, more than any model makes: a stream with more is broken or hostile.
const MAX_CALLS: usize = 256;

/// The calls so far.
#[derive(Debug)]
pub(super) struct Calls {
    id_prefix: String,
    made: Vec<Call>,
    /// The call in its older form: it becomes a call if the answer ends without others.
    legacy: Option<(String, String)>,
}

#[derive(Debug)]
struct Call {
    /// The upstream's index: the key that fragments are joined by.
    upstream_index: Option<u32>,
    kind: Option<String>,
    made: ToolCall,
    announced: bool,
    arguments: Progress,
}

/// The progress of a JSON object, by its braces.
#[derive(Debug, Default)]
struct Progress {
    depth: u32,
    in_text: bool,
    escaped: bool,
    ended: bool,
}

impl Progress {
    fn add(&mut self, piece: &str) {
        for byte in piece.bytes() {
            if self.escaped {
                self.escaped = false;
            } else if self.in_text {
                match byte {
                    b'\\' => self.escaped = true,
                    b'"' => self.in_text = false,
                    _ => {}
                }
            } else {
                match byte {
                    b'"' => self.in_text = true,
                    b'{' | b'[' => self.depth += 1,
                    b'}' | b']' => {
                        self.depth = self.depth.saturating_sub(1);
                        self.ended = self.depth == 0;
                    }
                    _ => {}
                }
            }
        }
    }
}

/// Counts the bytes that a fragment adds to the answer.
pub(super) fn size_of(fragment: &ChunkToolCall<'_>) -> usize {
    let function = fragment.function.as_ref();
    let text = |text: Option<&str>| text.map_or(0, str::len);
    let rest = fragment.rest.iter();
    text(function.and_then(|function| function.arguments.as_deref()))
        + text(function.and_then(|function| function.name.as_deref()))
        + text(fragment.id.as_deref())
        + rest
            .map(|field| field.name.len() + field.json.get().len())
            .sum::<usize>()
}

impl Calls {
    pub(super) fn new(id_prefix: String) -> Self {
        Self {
            id_prefix,
            made: Vec::new(),
            legacy: None,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.made.is_empty()
    }

    /// Checks that every call can be made.
    pub(super) fn check(&self) -> Result<(), AccumulateError> {
        if self.made.iter().any(|call| call.made.function.is_none()) {
            // Nobody could answer it, and the model would ask again until the run's last turn.
            let what = "a tool call is of a kind that is not served";
            return Err(AccumulateError::Malformed(what));
        }
        if self.made.iter().any(|call| call.made.name().is_empty()) {
            return Err(AccumulateError::Malformed("a tool call names no function"));
        }
        Ok(())
    }

    /// Drops the calls of which nothing was shown.
    pub(super) fn keep_announced(&mut self) {
        self.made.retain(|call| call.announced);
    }

    pub(super) fn into_calls(self) -> Vec<ToolCall> {
        self.made.into_iter().map(|call| call.made).collect()
    }

    /// Folds a fragment, and appends its additions to `deltas`.
    pub(super) fn fold(
        &mut self,
        fragment: ChunkToolCall<'_>,
        deltas: &mut Vec<Delta>,
    ) -> Result<(), AccumulateError> {
        let place = match self.place_of(&fragment) {
            Some(place) => place,
            None => self.open(fragment.index)?,
        };
        let index = u32::try_from(place).unwrap_or(u32::MAX);
        let is_taken = |id: &str| self.made.iter().any(|call| call.made.id == id);
        let id = fragment.id.filter(|id| !is_taken(id));
        let (name, arguments) = fragment
            .function
            .map(|function| (function.name, function.arguments))
            .unwrap_or_default();
        let arguments = arguments.unwrap_or_default();
        let slot = &mut self.made[place];
        // A call that was shown as a function's remains one.
        if let Some(kind) = fragment.kind
            && slot.kind.is_none()
            && !slot.announced
        {
            slot.made.kind = kind.to_string();
            slot.kind = Some(kind.into_owned());
        }
        for field in fragment.rest {
            if let Some((_, value)) = value_of(field.json.get()) {
                slot.made.rest.insert(field.name.into_owned(), value);
            }
        }
        if let Some(id) = id
            && slot.made.id.is_empty()
        {
            slot.made.id = id.into_owned();
        }
        if slot.made.kind != "function" {
            slot.made.function = None;
            return Ok(());
        }
        slot.arguments.add(&arguments);
        let function = slot.made.function.get_or_insert_default();
        if let Some(name) = name
            && function.name.is_empty()
        {
            function.name = name.into_owned();
        }
        function.arguments.push_str(&arguments);
        if slot.announced {
            if !arguments.is_empty() {
                deltas.push(Delta::ToolCall {
                    index,
                    id: None,
                    name: None,
                    arguments: arguments.into_owned(),
                });
            }
        } else if !function.name.is_empty() {
            slot.announced = true;
            if slot.made.id.is_empty() {
                slot.made.id = format!("{}{index}", self.id_prefix);
            }
            deltas.push(Delta::ToolCall {
                index,
                id: Some(slot.made.id.clone()),
                name: Some(function.name.clone()),
                arguments: function.arguments.clone(),
            });
        }
        Ok(())
    }

    /// Returns the call that a fragment continues; `None` if it opens one.
    ///
    /// Some upstreams give every call the index 0, or none, so a new id or name also opens a call.
    /// An id alone does not, because other upstreams make a new one for every fragment.
    fn place_of(&self, fragment: &ChunkToolCall<'_>) -> Option<usize> {
        let id = fragment.id.as_deref();
        let by_id = id.and_then(|id| self.made.iter().rposition(|call| call.made.id == *id));
        let place = match fragment.index {
            Some(index) => {
                let has_index = |call: &Call| call.upstream_index == Some(index);
                by_id
                    .filter(|place| has_index(&self.made[*place]))
                    .or_else(|| self.made.iter().rposition(has_index))
                    .or(by_id)?
            }
            None => by_id.or_else(|| self.made.len().checked_sub(1))?,
        };
        let call = &self.made[place];
        let function = fragment.function.as_ref();
        let Some(name) = function.and_then(|function| function.name.as_deref()) else {
            return Some(place);
        };
        if call.made.name().is_empty() {
            return Some(place);
        }
        let has_id = !call.made.id.is_empty() && !call.made.id.starts_with(&self.id_prefix);
        let is_other_id = has_id && id.is_some_and(|id| id != call.made.id);
        let begins_anew = call.arguments.ended
            && function
                .and_then(|function| function.arguments.as_deref())
                .is_some_and(|arguments| arguments.trim_start().starts_with('{'));
        let is_same_id = id.is_some() && !is_other_id && has_id;
        let opens = name != call.made.name() || is_other_id || (begins_anew && !is_same_id);
        (!opens).then_some(place)
    }

    /// Keeps a fragment of the call in its older form.
    pub(super) fn fold_legacy(&mut self, call: ChunkFunction<'_>) {
        let (name, arguments) = self.legacy.get_or_insert_default();
        if let Some(given) = call.name
            && name.is_empty()
        {
            *name = given.into_owned();
        }
        arguments.push_str(&call.arguments.unwrap_or_default());
    }

    /// Adds the call in its older form at the end of the answer, if there is no other call.
    /// Otherwise it repeats one of them.
    pub(super) fn settle_legacy(&mut self, deltas: &mut Vec<Delta>) -> Result<(), AccumulateError> {
        let Some((name, arguments)) = self.legacy.take() else {
            return Ok(());
        };
        if !self.made.is_empty() || name.is_empty() {
            return Ok(());
        }
        self.fold(
            ChunkToolCall {
                function: Some(ChunkFunction {
                    name: Some(name.into()),
                    arguments: Some(arguments.into()),
                }),
                ..ChunkToolCall::default()
            },
            deltas,
        )
    }

    fn open(&mut self, upstream_index: Option<u32>) -> Result<usize, AccumulateError> {
        if self.made.len() == MAX_CALLS {
            return Err(AccumulateError::Malformed("too many tool calls at once"));
        }
        self.made.push(Call {
            upstream_index,
            kind: None,
            made: ToolCall::function("", "", ""),
            announced: false,
            arguments: Progress::default(),
        });
        Ok(self.made.len() - 1)
    }
}
