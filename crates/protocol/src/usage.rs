//! Tokens used, as the upstream counted them.

use std::ops::{Add, AddAssign};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Token counts of one model turn, or the sum over a run's turns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[expect(
    clippy::struct_field_names,
    reason = "the field names are the OpenAI wire's"
)]
pub struct Usage {
    /// Tokens the model read.
    #[serde(default)]
    pub prompt_tokens: u64,
    /// Tokens the model wrote.
    #[serde(default)]
    pub completion_tokens: u64,
    /// Their sum, as the upstream reported it.
    #[serde(default)]
    pub total_tokens: u64,
}

impl Add for Usage {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            prompt_tokens: self.prompt_tokens.saturating_add(other.prompt_tokens),
            completion_tokens: self
                .completion_tokens
                .saturating_add(other.completion_tokens),
            total_tokens: self.total_tokens.saturating_add(other.total_tokens),
        }
    }
}

impl AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}
