//! The schema of an error, for the documentation: `baton_service::Problem` writes it.

use serde::Serialize;
use utoipa::ToSchema;

/// A problem, as RFC 9457 has it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Problem {
    #[serde(rename = "type")]
    kind: String,
    title: String,
    status: u16,
    /// What happened this time, for a person.
    detail: Option<String>,
    /// What happened, for a program.
    code: String,
    /// The field at fault.
    param: Option<String>,
}
