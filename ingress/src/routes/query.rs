//! Query parameters of native routes.

use std::str::FromStr;

use axum::extract::FromRequestParts;
use http::StatusCode;
use http::request::Parts;
use serde::de::DeserializeOwned;

use crate::error::ApiError;

/// The query parameters of a request. A refusal names the parameter that cannot be read.
pub(crate) struct QueryParams<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for QueryParams<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        read(parts.uri.query().unwrap_or_default()).map(Self)
    }
}

fn read<T: DeserializeOwned>(query: &str) -> Result<T, ApiError> {
    let pairs = form_urlencoded::parse(query.as_bytes());
    let pairs = serde_urlencoded::Deserializer::new(pairs);
    serde_path_to_error::deserialize(pairs).map_err(|error| {
        let param = error.path().to_string();
        match &*param {
            // No single parameter is at fault.
            "." | "?" => refusal(error.inner().to_string()),
            _ => bad_parameter(&param, format!("`{param}`: {}", error.inner())),
        }
    })
}

/// Refuses the value of a parameter.
pub(crate) fn bad_parameter(param: &str, message: impl Into<String>) -> ApiError {
    refusal(message.into()).param(param)
}

fn refusal(message: String) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, "invalid_parameter", message)
}

/// The usual and the greatest number of items on a page of a list.
const USUAL_PAGE: u32 = 20;
const MOST_ON_PAGE: u32 = 100;

/// Declares the query parameters of a list: its filter, and its page. The attributes of `cursor` describe the
/// form of its values.
macro_rules! list_params {
    (
        $(#[$doc:meta])*
        $vis:vis struct $name:ident { $($(#[$of:meta])* $field:ident: $type:ty,)* }
        cursor: $($form:tt)*
    ) => {
        $(#[$doc])*
        #[derive(Debug, serde::Deserialize, utoipa::IntoParams)]
        #[serde(deny_unknown_fields)]
        #[into_params(parameter_in = Query)]
        $vis struct $name {
            $($(#[$of])* $field: $type,)*
            /// The size of the page, 1 to 100. Default: 20.
            #[param(minimum = 1, maximum = 100, default = 20)]
            limit: Option<u32>,
            /// The `next_cursor` of the page before.
            #[param($($form)*)]
            cursor: Option<String>,
        }

        impl $name {
            /// Returns the cursor and the size of the page.
            $vis fn page<C: std::str::FromStr>(
                &self,
            ) -> Result<(Option<C>, u32), $crate::error::ApiError> {
                $crate::routes::query::page(self.limit, self.cursor.as_deref())
            }
        }
    };
}
pub(crate) use list_params;

/// Reads the cursor and the size of a page.
pub(crate) fn page<C: FromStr>(
    limit: Option<u32>,
    cursor: Option<&str>,
) -> Result<(Option<C>, u32), ApiError> {
    let limit = page_size(limit, USUAL_PAGE, MOST_ON_PAGE)?;
    let cursor = cursor.map(|cursor| cursor.parse().map_err(|_| bad_cursor()));
    Ok((cursor.transpose()?, limit))
}

/// Returns the number of items on a page.
pub(crate) fn page_size(given: Option<u32>, usual: u32, most: u32) -> Result<u32, ApiError> {
    match given.unwrap_or(usual) {
        size if (1..=most).contains(&size) => Ok(size),
        _ => Err(bad_parameter("limit", format!("`limit` is 1 to {most}"))),
    }
}

/// Refuses a cursor that this server did not issue.
pub(crate) fn bad_cursor() -> ApiError {
    bad_parameter("cursor", "`cursor` is the `next_cursor` of a page before")
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "read and not looked at")]
    struct Params {
        limit: Option<u32>,
        rebuilt: Option<bool>,
    }

    #[test]
    fn a_refusal_names_its_parameter() {
        for (query, named) in [
            ("limit=x", "`limit`"),
            ("limit=-1", "`limit`"),
            ("rebuilt=maybe", "`rebuilt`"),
            ("limt=1", "`limt`"),
            ("limit=1&limit=2", "`limit`"),
        ] {
            let error = read::<Params>(query).unwrap_err();
            assert_eq!(error.code, "invalid_parameter", "{query}");
            assert!(error.message.contains(named), "{query}: {}", error.message);
        }
        assert!(read::<Params>("limit=1&rebuilt=true").is_ok());
    }
}
