//! Parts of the chat API that a request needs and an upstream may lack.

/// The parts of the chat API that an upstream has. Without them a request cannot be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Knows {
    /// The field `tools`.
    pub tools: bool,
    /// The field `parallel_tool_calls`.
    pub parallel_tool_calls: bool,
    /// The field `response_format`.
    pub response_format: bool,
}

impl Default for Knows {
    fn default() -> Self {
        Self {
            tools: true,
            parallel_tool_calls: true,
            response_format: true,
        }
    }
}

/// The parts of the chat API that a request needs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Needs {
    /// It offers tools.
    pub tools: bool,
    /// It offers tools, and wants one call at a time.
    pub one_call: bool,
    /// It wants an answer in a format.
    pub response_format: bool,
}

impl Knows {
    /// Returns the field of a request with these needs that the upstream lacks.
    pub const fn lacks(self, needs: Needs) -> Option<&'static str> {
        if needs.tools && !self.tools {
            Some("tools")
        } else if needs.one_call && !self.parallel_tool_calls {
            Some("parallel_tool_calls")
        } else if needs.response_format && !self.response_format {
            Some("response_format")
        } else {
            None
        }
    }
}
