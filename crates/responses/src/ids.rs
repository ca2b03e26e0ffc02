//! The ids of responses and their items. Both come from the run's id, so that every server and
//! every replay gives the same ones.

use baton_protocol::RunId;

/// Returns the id of a run's response.
pub fn response_id(run: RunId) -> String {
    format!("resp_{run}")
}

/// A string that is not the id of a response.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the id of a response: it begins with `resp_`, followed by a run's id")]
pub struct InvalidResponseId(String);

/// Returns the run of a response's id.
pub fn run_of_response(id: &str) -> Result<RunId, InvalidResponseId> {
    id.strip_prefix("resp_")
        .and_then(|run| run.parse().ok())
        .ok_or_else(|| InvalidResponseId(id.chars().take(64).collect()))
}

/// A kind of item, with its place among those of its step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ItemKind {
    /// The model's reasoning.
    Reasoning,
    /// A message.
    Message,
    /// A call of the client's tool: its index among those of its turn.
    ClientCall(u32),
    /// A call of a server-side tool.
    ServerCall,
    /// The result of a call.
    CallOutput,
}

impl ItemKind {
    const fn prefix(self) -> &'static str {
        match self {
            Self::Reasoning => "rs",
            Self::Message => "msg",
            Self::ClientCall(_) | Self::ServerCall => "fc",
            Self::CallOutput => "fco",
        }
    }
}

/// Returns the id of an output item: the kind, the run and the step.
pub fn item_id(run: RunId, step: u32, kind: ItemKind) -> String {
    let id = format!("{}_{run}_{step}", kind.prefix());
    match kind {
        ItemKind::ClientCall(index) => format!("{id}_{index}"),
        ItemKind::Reasoning | ItemKind::Message | ItemKind::ServerCall | ItemKind::CallOutput => id,
    }
}

/// Returns the id of an input item: the kind, the run and the place in the input.
pub(crate) fn input_item_id(run: RunId, index: usize, kind: ItemKind) -> String {
    format!("{}_{run}_in{index}", kind.prefix())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_its_run() {
        let run: RunId = "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap();
        let id = response_id(run);
        assert_eq!(id, "resp_01890a5d-ac96-774b-bcce-b302099a8057");
        assert_eq!(run_of_response(&id), Ok(run));
        for other in [
            "01890a5d-ac96-774b-bcce-b302099a8057",
            "resp_",
            "resp_01890A5D-AC96-774B-BCCE-B302099A8057",
            "chatcmpl-01890a5d-ac96-774b-bcce-b302099a8057",
        ] {
            assert!(run_of_response(other).is_err(), "{other}");
        }
    }
}
