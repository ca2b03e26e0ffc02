//! What programs say to ingresses: submissions, control requests, questions for history. All are
//! core NATS, taken by one ingress of all; what nobody took, or whose answer was lost, is said again.
//!
//! Programs are in an account of their own, and the server carries over only what is in its
//! configuration. Answers go to subjects that are built from a run's id, and never to one that the
//! asker named as its inbox: the broker does not ask whether the asker might publish there, so that
//! it could be another tenant's. With each message it says who published it, in a header that no publisher can
//! write: that is whom an ingress believes, and without it nobody.

use async_nats::{HeaderMap, HeaderName, HeaderValue};
use baton_protocol::{ApiKeyId, RunId, RunStatus, TenantId};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::bus::{Bus, BusError};
use crate::subjects;

/// Ingresses share what programs say among themselves.
pub(crate) const QUEUE: &str = "ingress";
/// Written by the server when a message comes from another account, over whatever stood there.
const REQUEST_INFO: HeaderName = HeaderName::from_static("Nats-Request-Info");
/// Written by an operator's command for what is said again on behalf of a program.
pub(crate) const PUBLISHER: HeaderName = HeaderName::from_static("Baton-Publisher");
/// Longer addresses are none.
const MAX_ADDRESS: usize = 64;

/// Who published a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publisher {
    /// The API key that the connection was made with.
    pub api_key: ApiKeyId,
    /// The address of its other end, as the server saw it.
    pub ip: Option<String>,
}

/// Nobody is known to have published a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("nobody is known to have published this: {0}")]
pub struct NoPublisher(&'static str);

#[derive(Deserialize)]
struct RequestInfo {
    #[serde(default)]
    user: Option<String>,
    #[serde(default)]
    host: Option<String>,
}

impl Publisher {
    /// As the server says.
    pub(crate) fn stamped(headers: Option<&HeaderMap>) -> Result<Self, NoPublisher> {
        let mut stamps = headers
            .into_iter()
            .flat_map(|headers| headers.get_all(REQUEST_INFO));
        let stamp = stamps.next().ok_or(NoPublisher(
            "it did not come through the account of programs",
        ))?;
        if stamps.next().is_some() {
            return Err(NoPublisher("it says twice where it comes from"));
        }
        let info: RequestInfo = serde_json::from_str(stamp.as_str())
            .map_err(|_| NoPublisher("what the server says about it cannot be read"))?;
        Ok(Self {
            api_key: info
                .user
                .and_then(|user| user.parse().ok())
                .ok_or(NoPublisher("its connection was not made with an API key"))?,
            ip: info.host.filter(|host| host.len() <= MAX_ADDRESS),
        })
    }

    /// As an operator's command says.
    pub(crate) fn vouched_for(headers: Option<&HeaderMap>) -> Result<Self, NoPublisher> {
        let said = headers.and_then(|headers| headers.get(PUBLISHER));
        said.and_then(|said| Self::from_header(said.as_str()))
            .ok_or(NoPublisher("it was not kept who did"))
    }

    fn from_header(said: &str) -> Option<Self> {
        let mut words = said.split_ascii_whitespace();
        Some(Self {
            api_key: words.next()?.parse().ok()?,
            ip: words.next().map(str::to_owned),
        })
    }

    /// For a header.
    pub(crate) fn to_header(&self) -> String {
        match &self.ip {
            Some(ip) => format!("{} {}", self.api_key, ip.replace(char::is_whitespace, "")),
            None => self.api_key.to_string(),
        }
    }
}

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// The HTTP status of the same refusal.
    #[serde(skip)]
    pub status: u16,
    /// A stable word.
    pub code: String,
    /// A sentence for people.
    pub message: String,
    /// The request's field at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub param: Option<String>,
    /// Seconds after which another try may help.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u32>,
}

/// What came of a request about a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It was done, now or before; the run is in this state.
    Done {
        /// The state.
        status: RunStatus,
    },
    /// It was not.
    Refused(Refusal),
}

/// An answer as programs read it.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Reply<'a> {
    pub(crate) v: u32,
    pub(crate) verb: &'a str,
    /// Null if it could not be read.
    pub(crate) run_id: Option<RunId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) request_id: Option<&'a str>,
    pub(crate) ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) status: Option<RunStatus>,
    /// Whether the run had been accepted before.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) replayed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<&'a Refusal>,
}

impl<'a> Reply<'a> {
    pub(crate) fn new(
        verb: &'a str,
        run_id: Option<RunId>,
        request_id: Option<&'a str>,
        answer: &'a Answer,
    ) -> Self {
        let (status, error) = match answer {
            Answer::Done { status } => (Some(*status), None),
            Answer::Refused(refusal) => (None, Some(refusal)),
        };
        Self {
            v: 1,
            verb,
            run_id,
            request_id,
            ok: error.is_none(),
            status,
            replayed: false,
            error,
        }
    }

    pub(crate) fn encode(&self) -> Bytes {
        // Strings, ids and names always serialise.
        serde_json::to_vec(self).unwrap_or_default().into()
    }
}

impl Bus {
    /// Says something on a run's own subject.
    pub(crate) async fn reply(
        &self,
        tenant: TenantId,
        run: RunId,
        payload: Bytes,
    ) -> Result<(), BusError> {
        let client = self.connected_client().ok_or(BusError::Disconnected)?;
        let subject = subjects::replies(tenant, run);
        Ok(client.publish(subject, payload).await?)
    }
}

/// A header's value, if it is short and visible.
pub(crate) fn visible(headers: Option<&HeaderMap>, name: HeaderName, max: usize) -> Option<String> {
    let value = headers?.get(name).map(HeaderValue::as_str)?;
    let visible = (1..=max).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_graphic());
    visible.then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

    fn stamped(stamps: &[&str]) -> Result<Publisher, NoPublisher> {
        let mut headers = HeaderMap::new();
        for stamp in stamps {
            headers.append(REQUEST_INFO, *stamp);
        }
        Publisher::stamped(Some(&headers))
    }

    #[test]
    fn only_what_the_server_says_of_one_api_key_is_believed() {
        let good = format!(r#"{{"acc":"PROGRAMS","user":"{KEY}","host":"10.0.0.9","rtt":1}}"#);
        let publisher = stamped(&[&good]).unwrap();
        assert_eq!(publisher.api_key.to_string(), KEY);
        assert_eq!(publisher.ip.as_deref(), Some("10.0.0.9"));
        assert!(Publisher::stamped(None).is_err());
        let people = r#"{"acc":"PROGRAMS","user":"anna"}"#;
        for bad in [&[][..], &[&*good, &*good], &["{}"], &["?"], &[people]] {
            assert!(stamped(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_publisher_survives_a_header() {
        for ip in [None, Some("2001:db8::1".to_owned())] {
            let publisher = Publisher {
                api_key: KEY.parse().unwrap(),
                ip,
            };
            let read = Publisher::from_header(&publisher.to_header());
            assert_eq!(read, Some(publisher));
        }
    }
}
