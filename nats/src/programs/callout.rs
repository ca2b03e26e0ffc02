//! The server's question who connects, and its answer.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use async_nats::connection::State;
use async_nats::{Client, HeaderValue, Message, Subject};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use uuid::Uuid;

use super::curve::{self, CurveKey, Seal, SealError};
use super::jwt::{DecodeError, EncodeError, Issuer, signed_by_server};
use super::reach::{Permissions, Reach};
use crate::bus::{self, BusError, BusOptions, Link};
use crate::foreign::{Consumer, Foreign};
use crate::subjects;
use crate::subscription::Subscription;

/// The queue group of ingresses: one of them gets each question.
const QUEUE: &str = "ingress";
/// The audience of a question.
const AUDIENCE: &str = "nats-authorization-request";
/// The type of a question.
const QUESTION: &str = "authorization_request";
/// The account of programs in `accounts.conf`.
const PROGRAMS: &str = "PROGRAMS";
/// The version of the claims.
const VERSION: u32 = 2;

/// A new connection to the broker that uses none of the passwords in its configuration.
#[derive(Clone)]
pub struct ConnectRequest {
    /// The token that the client sent.
    pub token: Option<String>,
    /// The address that the connection comes from.
    pub address: Option<IpAddr>,
    /// The client's name for itself, with its library and that library's version.
    pub client: String,
    /// The key that the server made for this one connection.
    user: String,
    /// The server that asks.
    server: String,
    /// The seal for the answer, if the question was sealed.
    seal: Option<Seal>,
    reply: Subject,
}

/// Omits the token, because it may be a key.
impl fmt::Debug for ConnectRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectRequest")
            .field("has_token", &self.token.is_some())
            .field("address", &self.address)
            .field("client", &self.client)
            .field("server", &self.server)
            .field("sealed", &self.seal.is_some())
            .finish_non_exhaustive()
    }
}

/// A reason for which a question is not answered.
#[derive(Debug, thiserror::Error)]
pub enum BadQuestion {
    /// No server signed it.
    #[error(transparent)]
    Token(#[from] DecodeError),
    /// It is signed, but has another purpose or another sender.
    #[error("it is no question of a server's about a connection")]
    OtherPurpose,
    /// It has expired.
    #[error("it has expired")]
    Expired,
    /// It is not sealed as this ingress expects.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// It has no subject for an answer.
    #[error("it names no subject for an answer")]
    NoReply,
}

/// A reason for which an answer was not sent.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// It could not be made.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// It could not be sealed.
    #[error("the answer cannot be encrypted: {0}")]
    Seal(#[source] nkeys::error::Error),
    /// It could not be handed to the connection.
    #[error(transparent)]
    Bus(#[from] BusError),
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    exp: i64,
    nats: Question,
}

#[derive(Deserialize)]
struct Question {
    #[serde(rename = "type")]
    kind: String,
    server_id: ServerId,
    user_nkey: String,
    #[serde(default)]
    client_info: ClientInfo,
    #[serde(default)]
    connect_opts: ConnectOpts,
}

#[derive(Deserialize)]
struct ServerId {
    id: String,
    #[serde(default)]
    xkey: String,
}

#[derive(Default, Deserialize)]
struct ClientInfo {
    #[serde(default)]
    host: String,
}

#[derive(Default, Deserialize)]
struct ConnectOpts {
    #[serde(default)]
    auth_token: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    lang: String,
    #[serde(default)]
    version: String,
}

/// The claims of an answer, or of the user that it admits.
#[derive(Serialize)]
struct Signed<'a, T> {
    jti: Uuid,
    iat: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    exp: Option<i64>,
    iss: String,
    sub: &'a str,
    aud: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<Uuid>,
    nats: T,
}

#[derive(Serialize)]
struct Answer<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    jwt: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(rename = "type")]
    kind: &'static str,
    version: u32,
}

#[derive(Serialize)]
struct User {
    #[serde(flatten)]
    permissions: Permissions,
    #[serde(rename = "type")]
    kind: &'static str,
    version: u32,
}

/// An admitted program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Program {
    /// The subjects that it reaches. Its key becomes the connection's user name.
    pub reach: Reach,
    /// The time at which the server closes the connection; the client then makes a new one by
    /// itself.
    pub until: DateTime<Utc>,
}

/// The servers' questions, for as long as this ingress listens.
#[derive(Debug)]
pub struct ConnectRequests {
    subscription: Subscription,
    curve: Option<CurveKey>,
}

impl ConnectRequests {
    /// Returns the next question, or an error for a message that cannot be read as one; `None`
    /// once the connection is gone for good. Cancel-safe.
    pub async fn next(
        &mut self,
        now: impl Fn() -> DateTime<Utc>,
    ) -> Option<Result<ConnectRequest, BadQuestion>> {
        let message = self.subscription.next().await?;
        Some(read(&message, self.curve.as_ref(), now()))
    }
}

/// The connection that answers servers' questions about new connections.
///
/// The subject and the headers of a question are the server's own. A stranger's words are in its
/// payload, which the server measures, so any client library reads it safely. A stranger chooses
/// the number of questions, though, and the server cuts off a slow reader. So this is a separate
/// connection, with a user who may do nothing else.
#[derive(Debug, Clone)]
pub struct CalloutBus {
    client: Client,
    link: watch::Receiver<Link>,
    foreign: Arc<Foreign>,
}

impl CalloutBus {
    /// Connects in the background and reconnects for ever; until then the server admits no new
    /// program.
    pub async fn connect(options: BusOptions) -> Result<Self, BusError> {
        let (client, link) = bus::connect_in_background(options).await?;
        Ok(Self {
            client,
            link,
            foreign: Arc::default(),
        })
    }

    /// Waits until the connection is gone for good, as [`Bus::closed`](crate::Bus::closed).
    pub async fn closed(&self) {
        bus::closed(self.link.clone()).await;
    }

    /// Subscribes to servers' questions, shared with all other ingresses. With a curve key it
    /// accepts only questions that are sealed for it, without one only unsealed ones.
    pub async fn connect_requests(
        &self,
        curve: Option<CurveKey>,
    ) -> Result<ConnectRequests, BusError> {
        let subscription = Subscription::open_in_group(
            &self.client,
            &self.foreign,
            Consumer::Connects,
            subjects::CONNECTS.into(),
            QUEUE,
        )
        .await?;
        Ok(ConnectRequests {
            subscription,
            curve,
        })
    }

    /// Admits the connection.
    pub async fn admit(
        &self,
        request: &ConnectRequest,
        program: &Program,
        issuer: &Issuer,
        now: DateTime<Utc>,
    ) -> Result<(), AnswerError> {
        let answer = admission(request, program, issuer, now)?;
        self.answer_connect(request, answer).await
    }

    /// Refuses the connection. The reason goes to the server's log; the client learns only that it
    /// was refused.
    pub async fn refuse(
        &self,
        request: &ConnectRequest,
        reason: &str,
        issuer: &Issuer,
        now: DateTime<Utc>,
    ) -> Result<(), AnswerError> {
        let answer = answer(request, Err(reason), issuer, now)?;
        self.answer_connect(request, answer).await
    }

    async fn answer_connect(
        &self,
        request: &ConnectRequest,
        answer: String,
    ) -> Result<(), AnswerError> {
        if self.client.connection_state() != State::Connected {
            return Err(BusError::Disconnected.into());
        }
        let reply = request.reply.clone();
        let answer = match &request.seal {
            Some(seal) => seal.close(&answer).map_err(AnswerError::Seal)?,
            None => answer.into_bytes(),
        };
        self.client
            .publish(reply, answer.into())
            .await
            .map_err(BusError::from)?;
        Ok(())
    }
}

fn read(
    message: &Message,
    curve: Option<&CurveKey>,
    now: DateTime<Utc>,
) -> Result<ConnectRequest, BadQuestion> {
    let reply = message.reply.clone().ok_or(BadQuestion::NoReply)?;
    let sealed_by = message
        .headers
        .as_ref()
        .and_then(|headers| headers.get(curve::SEALED_BY))
        .map(HeaderValue::as_str);
    let (question, seal) = curve::open(&message.payload, sealed_by, curve)?;
    let token = std::str::from_utf8(&question).map_err(|_| DecodeError::Form)?;
    let claims: Claims = signed_by_server(token)?;
    let question = claims.nats;
    if claims.aud != AUDIENCE || question.kind != QUESTION || question.server_id.id != claims.iss {
        return Err(BadQuestion::OtherPurpose);
    }
    // Only the server that signed the question may read the answer.
    if seal
        .as_ref()
        .is_some_and(|seal| seal.server_key != question.server_id.xkey)
    {
        return Err(BadQuestion::OtherPurpose);
    }
    if claims.exp <= now.timestamp() {
        return Err(BadQuestion::Expired);
    }
    let opts = question.connect_opts;
    Ok(ConnectRequest {
        token: Some(opts.auth_token).filter(|token| !token.is_empty()),
        address: question.client_info.host.parse().ok(),
        client: format!("{} ({} {})", opts.name, opts.lang, opts.version),
        user: question.user_nkey,
        server: claims.iss,
        seal,
        reply,
    })
}

fn admission(
    request: &ConnectRequest,
    program: &Program,
    issuer: &Issuer,
    now: DateTime<Utc>,
) -> Result<String, EncodeError> {
    let user = Signed {
        jti: Uuid::new_v4(),
        iat: now.timestamp(),
        exp: Some(program.until.timestamp()),
        iss: issuer.public_key(),
        sub: &request.user,
        aud: PROGRAMS,
        name: Some(program.reach.key.as_uuid()),
        nats: User {
            permissions: program.reach.permissions(),
            kind: "user",
            version: VERSION,
        },
    };
    answer(request, Ok(issuer.sign(&user)?), issuer, now)
}

fn answer(
    request: &ConnectRequest,
    decision: Result<String, &str>,
    issuer: &Issuer,
    now: DateTime<Utc>,
) -> Result<String, EncodeError> {
    let (jwt, error) = match decision {
        Ok(jwt) => (Some(jwt), None),
        Err(error) => (None, Some(error)),
    };
    issuer.sign(&Signed {
        jti: Uuid::new_v4(),
        iat: now.timestamp(),
        exp: None,
        iss: issuer.public_key(),
        sub: &request.user,
        aud: &request.server,
        name: None,
        nats: Answer {
            jwt,
            error,
            kind: "authorization_response",
            version: VERSION,
        },
    })
}

#[cfg(test)]
mod tests {
    use nkeys::KeyPair;
    use serde_json::{Value, json};

    use super::*;

    const NOW: DateTime<Utc> = DateTime::from_timestamp(1_000, 0).unwrap();

    fn question(server: &KeyPair) -> Value {
        json!({
            "iss": server.public_key(), "aud": AUDIENCE, "exp": 1_002, "sub": "x",
            "nats": {
                "type": QUESTION, "version": 2,
                "server_id": {"id": server.public_key(), "name": "n"},
                "user_nkey": "U", "client_info": {"host": "192.0.2.7", "kind": "Client"},
                "connect_opts": {
                    "auth_token": "bt_x", "name": "n", "lang": "go", "version": "1", "protocol": 1
                }
            }
        })
    }

    fn ask(server: KeyPair, claims: &Value) -> Result<ConnectRequest, BadQuestion> {
        let payload = Issuer::of(server).sign(claims).unwrap();
        let message = Message {
            subject: subjects::CONNECTS.into(),
            reply: Some("to.me".into()),
            payload: payload.into(),
            headers: None,
            status: None,
            description: None,
            length: 0,
        };
        read(&message, None, NOW)
    }

    #[test]
    fn a_question_says_who_wants_in() {
        let server = KeyPair::new_server();
        let claims = question(&server);
        let asked = ask(server, &claims).unwrap();
        assert_eq!(asked.token.as_deref(), Some("bt_x"));
        assert_eq!(asked.address, Some("192.0.2.7".parse().unwrap()));
        assert_eq!(asked.client, "n (go 1)");
        let debug = format!("{asked:?}");
        assert!(
            debug.contains("192.0.2.7") && !debug.contains("bt_x"),
            "{debug}"
        );
    }

    #[test]
    fn what_is_not_meant_for_an_ingress_or_too_late_is_not_answered() {
        for (pointer, value) in [
            ("/aud", json!("somebody else")),
            ("/nats/type", json!("user")),
            ("/nats/server_id/id", json!("another")),
            ("/exp", json!(1_000)),
        ] {
            let server = KeyPair::new_server();
            let mut claims = question(&server);
            *claims.pointer_mut(pointer).unwrap() = value;
            let refused = ask(server, &claims).unwrap_err();
            assert!(
                matches!(refused, BadQuestion::OtherPurpose | BadQuestion::Expired),
                "{pointer}: {refused}"
            );
        }
        let user = KeyPair::new_user();
        let claims = question(&user);
        assert!(matches!(ask(user, &claims), Err(BadQuestion::Token(_))));
    }
}
