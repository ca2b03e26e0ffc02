//! The rights of a credential over models and tools.

use baton_protocol::ApiKeyId;
use baton_store::KeyLimits;

/// The rights of a credential. `None` means no list: everything is allowed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grant {
    /// The requesting key, if it is a key.
    pub api_key: Option<ApiKeyId>,
    /// The allowed upstream models.
    pub models: Option<Vec<String>>,
    /// The allowed server-side tools.
    pub tools: Option<Vec<String>>,
    /// The limits of the key's consumption.
    pub limits: KeyLimits,
}

impl Grant {
    /// Returns whether the model is on the list, or there is no list.
    pub fn allows_model(&self, model: &str) -> bool {
        allows(self.models.as_deref(), model)
    }

    /// Returns whether the tool is on the list, or there is no list.
    pub fn allows_tool(&self, tool: &str) -> bool {
        allows(self.tools.as_deref(), tool)
    }
}

fn allows(list: Option<&[String]>, name: &str) -> bool {
    list.is_none_or(|list| list.iter().any(|allowed| allowed == name))
}
