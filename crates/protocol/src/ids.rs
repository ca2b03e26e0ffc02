//! Typed ids. Every id is a UUID, written hyphenated and in lower case in JSON, in SQL and in NATS
//! subjects. Subjects and queries are built from these types only, so that no client can smuggle a
//! wildcard into one.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::{NoContext, Timestamp, Uuid};

/// A string that is not an id, because it is not a UUID in hyphenated form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{given}` is not a {kind} id: write a hyphenated UUID such as 01890a5d-ac96-774b-bcce-b302099a8057"
)]
pub struct InvalidId {
    /// The expected kind of id, for instance `run`.
    pub kind: &'static str,
    /// The given string, cut to 64 characters.
    pub given: String,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
        )]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// Makes a time-ordered id (UUIDv7) for something that begins at `now`.
            pub fn new(now: DateTime<Utc>) -> Self {
                let seconds = u64::try_from(now.timestamp()).unwrap_or(0);
                let stamp = Timestamp::from_unix(NoContext, seconds, now.timestamp_subsec_nanos());
                Self(Uuid::new_v7(stamp))
            }

            /// The nil id, which names nothing.
            pub const fn nil() -> Self {
                Self(Uuid::nil())
            }

            /// Wraps a stored UUID.
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// Returns the UUID to store.
            pub const fn as_uuid(&self) -> Uuid {
                self.0
            }

            /// Returns the time at which the id was made, in milliseconds since 1970, if it is a
            /// UUIDv7.
            pub fn unix_millis(&self) -> Option<u64> {
                let (seconds, nanos) = self.0.get_timestamp()?.to_unix();
                (self.0.get_version_num() == 7)
                    .then_some(seconds * 1_000 + u64::from(nanos / 1_000_000))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0.as_hyphenated(), f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0.as_hyphenated(), f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            /// Accepts only the canonical form, because other spellings of a UUID would make two
            /// subjects of one id.
            fn from_str(given: &str) -> Result<Self, InvalidId> {
                let mut canonical = Uuid::encode_buffer();
                match Uuid::try_parse(given) {
                    Ok(uuid) if uuid.as_hyphenated().encode_lower(&mut canonical) == given => {
                        Ok(Self(uuid))
                    }
                    _ => Err(InvalidId { kind: $kind, given: given.chars().take(64).collect() }),
                }
            }
        }
    };
}

id! {
    /// The owner of users, keys, threads and runs. It is the scope of everything.
    TenantId, "tenant"
}
id! {
    /// One execution of an agent over some input.
    RunId, "run"
}
id! {
    /// A stored conversation.
    ThreadId, "thread"
}
id! {
    /// One message of a run's or thread's transcript.
    MessageId, "message"
}
id! {
    /// A machine's credential.
    ApiKeyId, "API key"
}
id! {
    /// A stored agent, in all its versions.
    AgentId, "agent"
}
id! {
    /// A call that waits, or waited, for a person.
    ApprovalId, "approval"
}
id! {
    /// A judgement about a run.
    FeedbackId, "feedback"
}
id! {
    /// A person.
    UserId, "user"
}
id! {
    /// One sign-in of a person, for as long as its refresh tokens continue.
    SessionId, "session"
}
id! {
    /// A token for one action, once: join a tenant, or set a new password.
    InviteId, "invite"
}
id! {
    /// One entry of the audit log.
    AuditId, "audit entry"
}
id! {
    /// One worker process, for as long as it lives.
    WorkerId, "worker"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_written_in_one_way_only() {
        let id: RunId = "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap();
        assert_eq!(id.to_string(), "01890a5d-ac96-774b-bcce-b302099a8057");
        assert_eq!(
            serde_json::to_string(&id).unwrap(),
            "\"01890a5d-ac96-774b-bcce-b302099a8057\""
        );
        for other in [
            "01890A5D-AC96-774B-BCCE-B302099A8057",
            "01890a5dac96774bbcceb302099a8057",
            "{01890a5d-ac96-774b-bcce-b302099a8057}",
            "*",
            ">",
            "",
        ] {
            assert!(other.parse::<RunId>().is_err(), "{other}");
        }
    }

    #[test]
    fn a_fresh_id_carries_its_time() {
        let now = DateTime::from_timestamp_millis(1_780_000_000_123).unwrap();
        assert_eq!(RunId::new(now).unix_millis(), Some(1_780_000_000_123));
        assert_ne!(RunId::new(now), RunId::new(now));
    }
}
