//! The authenticated sender of a request.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use baton_admission::{Grant, Sender};
use baton_protocol::{ApiKeyId, Role, SessionId, TenantId, UserId};
use baton_store::{ActorKind, ApiKeyRecord, KeyLimits, Maker, TenantTx};
use chrono::{DateTime, Utc};

use crate::error::ApiError;
use crate::metrics::{self, AuthRefusal};
use baton_identity::scopes::Scopes;

/// The kind of credential that a caller presented, with its subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Credential {
    /// An API key.
    ApiKey(ApiKeyId),
    /// A session of a person who signed in here.
    Session {
        user: UserId,
        session: SessionId,
        role: Role,
    },
    /// A token of another issuer.
    Issuer { subject: Arc<str>, role: Role },
}

/// An actor in the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Actor {
    pub(crate) kind: ActorKind,
    pub(crate) id: Option<String>,
}

impl Actor {
    /// Returns the actor without a good credential; `claimed` is the identity that they claimed.
    pub(crate) fn nobody(claimed: Option<String>) -> Self {
        Self {
            kind: ActorKind::Nobody,
            id: claimed,
        }
    }

    /// Returns the actor of a person.
    pub(crate) fn user(user: UserId) -> Self {
        Self {
            kind: ActorKind::User,
            id: Some(user.to_string()),
        }
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}",
            self.kind.as_str(),
            self.id.as_deref().unwrap_or_default()
        )
    }
}

/// The sender of a request: their tenant, credential and permissions.
#[derive(Debug)]
pub(crate) struct Caller {
    pub(crate) tenant: TenantId,
    pub(crate) grant: Grant,
    pub(crate) credential: Credential,
    pub(crate) scopes: Scopes,
    /// The rate and spending limits of the credential.
    pub(crate) limits: KeyLimits,
    /// The credential is refused from then on. For a session this is the end of the access token.
    pub(crate) expires_at: Option<DateTime<Utc>>,
    pub(crate) revoked: bool,
}

impl From<ApiKeyRecord> for Caller {
    fn from(record: ApiKeyRecord) -> Self {
        Self {
            tenant: record.tenant,
            grant: Grant {
                api_key: Some(record.id),
                models: record.allowed_models,
                tools: record.allowed_tools,
                limits: record.limits,
            },
            credential: Credential::ApiKey(record.id),
            scopes: Scopes::stored(record.scopes),
            limits: record.limits,
            expires_at: record.expires_at,
            revoked: record.revoked_at.is_some(),
        }
    }
}

impl Caller {
    /// Returns the caller as the audit log names them.
    pub(crate) fn actor(&self) -> Actor {
        match &self.credential {
            Credential::ApiKey(key) => Actor {
                kind: ActorKind::ApiKey,
                id: Some(key.to_string()),
            },
            Credential::Session { user, .. } => Actor::user(*user),
            Credential::Issuer { subject, .. } => Actor {
                kind: ActorKind::Issuer,
                id: Some(subject.to_string()),
            },
        }
    }

    /// Returns the caller as the sender of a request for a run.
    pub(crate) fn sender(&self) -> Sender<'_> {
        Sender {
            tenant: self.tenant,
            grant: &self.grant,
            actor: self.actor().to_string(),
            user: match self.credential {
                Credential::Session { user, .. } => Some(user),
                Credential::ApiKey(_) | Credential::Issuer { .. } => None,
            },
        }
    }

    /// Returns the highest role that this caller may give to somebody. A key may give a role only
    /// if it has all of the role's scopes; a key with any other restriction may give none, because
    /// a person has no such restrictions.
    pub(crate) fn role_to_give(&self) -> Option<Role> {
        match &self.credential {
            Credential::Session { role, .. } | Credential::Issuer { role, .. } => Some(*role),
            Credential::ApiKey(_) => {
                let confined = self.grant.models.is_some()
                    || self.grant.tools.is_some()
                    || self.limits != KeyLimits::default()
                    || self.expires_at.is_some();
                Role::ALL
                    .into_iter()
                    .rev()
                    .find(|role| !confined && self.scopes.cover(&Scopes::of_role(*role)))
            }
        }
    }

    /// Returns the authority under which this caller creates things.
    pub(crate) fn maker(&self) -> Maker {
        match &self.credential {
            Credential::ApiKey(key) => Maker::Key(*key),
            Credential::Session { user, role, .. } => Maker::Member(*user, *role),
            Credential::Issuer { .. } => Maker::Elsewhere,
        }
    }

    /// Locks this caller's authority until the end of the transaction, and refuses a caller who has
    /// lost it since the credential was looked up.
    pub(crate) async fn hold(&self, tx: &mut TenantTx) -> Result<(), ApiError> {
        if tx.hold_maker(self.maker()).await? {
            Ok(())
        } else {
            Err(ApiError::authority_changed())
        }
    }

    /// Returns the lifetime of something that this caller creates and that usually lives for
    /// `usual`. For a caller with another issuer's token it ends with the token, because their role
    /// is known only until then.
    pub(crate) fn life_of_made(&self, usual: Duration, now: DateTime<Utc>) -> Duration {
        match (&self.credential, self.expires_at) {
            (Credential::Issuer { .. }, Some(end)) => {
                usual.min((end - now).to_std().unwrap_or_default())
            }
            _ => usual,
        }
    }

    /// Refuses a credential that has expired or was revoked.
    pub(crate) fn check_alive(&self, now: DateTime<Utc>) -> Result<(), ApiError> {
        let refuse = |reason, key, token| {
            metrics::auth_refusal(reason);
            Err(match self.credential {
                Credential::ApiKey(_) => ApiError::unauthorized(key),
                Credential::Session { .. } | Credential::Issuer { .. } => {
                    ApiError::invalid_token(token)
                }
            })
        };
        if self.revoked {
            let (key, token) = ("this API key was revoked", "this session is over: sign in");
            return refuse(AuthRefusal::Revoked, key, token);
        }
        if self.expires_at.is_some_and(|at| at <= now) {
            let (key, token) = (
                "this API key has expired",
                "this access token has expired: refresh",
            );
            return refuse(AuthRefusal::Expired, key, token);
        }
        Ok(())
    }

    /// Refuses a credential that has expired, was revoked, or lacks the scope.
    pub(crate) fn check(&self, scope: &'static str, now: DateTime<Utc>) -> Result<(), ApiError> {
        self.check_alive(now)?;
        if self.scopes.has(scope) {
            return Ok(());
        }
        metrics::auth_refusal(AuthRefusal::Scope);
        let what = match self.credential {
            Credential::ApiKey(_) => "this API key",
            Credential::Session { .. } | Credential::Issuer { .. } => "your role",
        };
        let message = format!("{what} lacks the scope `{scope}`");
        Err(ApiError::forbidden("scope_missing", message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(scopes: &[&str], expires: Option<i64>, revoked: bool) -> Caller {
        let now = DateTime::from_timestamp(1_000, 0).unwrap();
        Caller {
            tenant: TenantId::new(now),
            grant: Grant::default(),
            credential: Credential::ApiKey(ApiKeyId::new(now)),
            scopes: Scopes::stored(scopes.iter().map(ToString::to_string).collect()),
            limits: KeyLimits::default(),
            expires_at: expires.map(|at| DateTime::from_timestamp(at, 0).unwrap()),
            revoked,
        }
    }

    #[test]
    fn a_key_must_be_alive_and_hold_the_scope() {
        let now = DateTime::from_timestamp(1_000, 0).unwrap();
        let status = |caller: &Caller| {
            caller
                .check("runs:write", now)
                .err()
                .map(|error| error.status.as_u16())
        };
        assert_eq!(status(&caller(&["runs:write"], None, false)), None);
        assert_eq!(status(&caller(&["*"], Some(1_001), false)), None);
        assert_eq!(status(&caller(&["runs:read"], None, false)), Some(403));
        assert_eq!(status(&caller(&[], None, false)), Some(403));
        assert_eq!(status(&caller(&["*"], Some(1_000), false)), Some(401));
        assert_eq!(status(&caller(&["*"], None, true)), Some(401));
    }

    #[test]
    fn a_key_gives_no_role_that_could_do_more_than_itself() {
        assert_eq!(
            caller(&["*"], None, false).role_to_give(),
            Some(Role::Owner)
        );
        assert_eq!(caller(&["members:write"], None, false).role_to_give(), None);
        let viewer = ["members:write", "runs:read", "models:read", "agents:read"];
        assert_eq!(
            caller(&viewer, None, false).role_to_give(),
            Some(Role::Viewer)
        );
        assert_eq!(caller(&["*"], Some(9_999), false).role_to_give(), None);
        let mut confined = caller(&["*"], None, false);
        confined.grant.models = Some(vec!["m".into()]);
        assert_eq!(confined.role_to_give(), None);
    }
}
