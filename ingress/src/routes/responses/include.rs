//! The query parameter `include`.

use serde::Deserialize;

use crate::error::ApiError;
use crate::routes::query::bad_parameter;

/// The parts that a client asks to be added to items. There are none here, so only an empty list is served.
///
/// SDKs write the parameter as `include[]`: a query that reads this type has both names for it.
#[derive(Debug, Default, Deserialize)]
#[serde(transparent)]
pub(crate) struct Include(String);

impl Include {
    /// Refuses everything but an empty list.
    pub(in crate::routes) fn refuse(&self) -> Result<(), ApiError> {
        if self.0.is_empty() {
            return Ok(());
        }
        Err(bad_parameter(
            "include",
            "`include` is refused: this server has nothing to include. Leave it out",
        ))
    }
}
