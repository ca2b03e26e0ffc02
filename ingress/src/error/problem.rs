//! The documented schema of an error; `baton_service::Problem` writes it.

use serde::Serialize;
use utoipa::ToSchema;

/// A problem as defined in RFC 9457.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Problem {
    #[serde(rename = "type")]
    kind: String,
    title: String,
    status: u16,
    /// This occurrence of the error, for a person.
    detail: Option<String>,
    /// The kind of error, for a program.
    code: String,
    /// The field at fault.
    param: Option<String>,
}
