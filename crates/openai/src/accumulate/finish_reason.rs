//! The finish reasons: few ends for the many words of servers.

/// A good end of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// The model ended its answer.
    Stop,
    /// A limit stopped it.
    Length,
    /// It calls tools.
    ToolCalls,
    /// A filter stopped it.
    ContentFilter,
}

impl FinishReason {
    /// Reads an upstream's word, in upper or lower case. Returns `None` for a word that is not
    /// known as a good end, such as `abort` or `error`.
    pub fn read(word: &str) -> Option<Self> {
        Some(match word.trim().to_ascii_lowercase().as_str() {
            "stop" | "stop_sequence" | "stop_token" | "eos" | "eos_token" | "end_turn"
            | "end_of_turn" | "complete" | "completed" | "finished" | "done" => Self::Stop,
            "length"
            | "max_tokens"
            | "max_length"
            | "max_output_tokens"
            | "max_new_tokens"
            | "max_completion_tokens"
            | "model_length"
            | "model_context_window_exceeded"
            | "error_limit" => Self::Length,
            "tool_calls" | "tool_call" | "tool_use" | "function_call" | "function_calls" => {
                Self::ToolCalls
            }
            "content_filter"
            | "content_filtered"
            | "safety"
            | "recitation"
            | "blocklist"
            | "prohibited_content"
            | "spii"
            | "language"
            | "image_safety"
            | "image_prohibited_content"
            | "image_recitation"
            | "model_armor"
            | "guardrail_intervened"
            | "guardrails"
            | "refusal"
            | "sensitive"
            | "error_toxic" => Self::ContentFilter,
            _ => return None,
        })
    }

    /// Its name in the OpenAI API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::ToolCalls => "tool_calls",
            Self::ContentFilter => "content_filter",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_word_that_is_known_is_a_good_end() {
        for (word, reason) in [
            ("stop", Some(FinishReason::Stop)),
            ("eos_token", Some(FinishReason::Stop)),
            ("STOP", Some(FinishReason::Stop)),
            ("MAX_TOKENS", Some(FinishReason::Length)),
            ("model_length", Some(FinishReason::Length)),
            ("SAFETY", Some(FinishReason::ContentFilter)),
            ("tool_use", Some(FinishReason::ToolCalls)),
            ("function_call", Some(FinishReason::ToolCalls)),
            ("abort", None),
            ("error", None),
            ("ERROR", None),
            ("insufficient_system_resource", None),
            ("network_error", None),
            ("MALFORMED_FUNCTION_CALL", None),
            ("a word of tomorrow", None),
        ] {
            assert_eq!(FinishReason::read(word), reason, "{word}");
        }
    }
}
