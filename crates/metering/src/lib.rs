//! The cost of a model's turn: its estimate before the model is asked, and its price afterwards.
//! No I/O.
//!
//! A budget is charged the same way in admission, which reserves a run's first turn, and in the
//! worker, which reserves each turn and charges the tokens that it used.

mod estimate;
mod prices;

pub use estimate::{ANSWER_LIMITS, BUILT_IN_TOOL_SIZES, MCP_TOOL_SIZE, Metering, ToolSizes};
pub use prices::{Prices, is_other_model, recorded_name};
