//! The subjects that a program reaches, as far as its scopes allow: it publishes on those of its
//! own key and subscribes to those of its tenant.

use baton_protocol::{ApiKeyId, Lane, TenantId};
use serde::Serialize;

use crate::programs::control::Verb;
use crate::subjects::program;

/// The most subscriptions of one connection: three for each of some dozen runs, or four with
/// wildcards for all runs of the tenant.
pub(crate) const MAX_SUBSCRIPTIONS: u32 = 128;
/// The largest message that a program may publish, in bytes; a larger request goes over HTTP.
pub(crate) const MAX_PAYLOAD: usize = 256 << 10;

/// A program's rights on the bus, for one tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    /// The tenant.
    pub tenant: TenantId,
    /// The key, which is part of every subject that it may publish to.
    pub key: ApiKeyId,
    /// Submit runs, send messages to them and cancel them.
    pub write: bool,
    /// Follow runs and ask for their history.
    pub read: bool,
    /// Decide for parked runs.
    pub decide: bool,
}

/// The part of a user's claims that holds its permissions.
#[derive(Debug, Serialize)]
pub(crate) struct Permissions {
    #[serde(rename = "pub")]
    publish: Subjects,
    #[serde(rename = "sub")]
    subscribe: Subjects,
    subs: u32,
    /// The server reads this but enforces nothing by it.
    data: usize,
    payload: usize,
    allowed_connection_types: [&'static str; 2],
}

/// A list of subjects. An empty one would allow everything, so it denies everything instead.
#[derive(Debug, Serialize)]
struct Subjects {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    allow: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    deny: Vec<String>,
}

impl From<Vec<String>> for Subjects {
    fn from(allow: Vec<String>) -> Self {
        let deny = if allow.is_empty() {
            vec![">".to_owned()]
        } else {
            Vec::new()
        };
        Self { allow, deny }
    }
}

impl Reach {
    /// Returns whether the program may do nothing.
    pub const fn is_nothing(&self) -> bool {
        !self.write && !self.read && !self.decide
    }

    /// Returns the permissions in the server's form.
    pub(crate) fn permissions(&self) -> Permissions {
        let (tenant, key) = (self.tenant, self.key);
        let mut publish = Vec::new();
        let mut subscribe = Vec::new();
        if !self.is_nothing() {
            subscribe.push(program::replies(tenant));
            subscribe.push(program::inbox(tenant));
        }
        if self.write {
            publish.extend(Lane::ALL.map(|lane| program::jobs(tenant, key, lane)));
            publish.push(program::control(tenant, key, Verb::Cancel));
            publish.push(program::control(tenant, key, Verb::Steer));
        }
        if self.read {
            publish.push(program::history(tenant, key));
            subscribe.push(program::live(tenant));
            subscribe.push(program::past(tenant));
        }
        if self.decide {
            publish.push(program::control(tenant, key, Verb::Decide));
        }
        Permissions {
            publish: publish.into(),
            subscribe: subscribe.into(),
            subs: MAX_SUBSCRIPTIONS,
            data: MAX_PAYLOAD,
            payload: MAX_PAYLOAD,
            // Neither leaf nodes nor other protocols.
            allowed_connection_types: ["STANDARD", "WEBSOCKET"],
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_scope_opens_its_subjects_and_no_others() {
        let tenant: TenantId = "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap();
        let key: ApiKeyId = "01890a5d-ac96-774b-bcce-b302099a8058".parse().unwrap();
        let of = |write, read, decide| {
            let reach = Reach {
                tenant,
                key,
                write,
                read,
                decide,
            };
            let value = serde_json::to_value(reach.permissions()).unwrap();
            (value["pub"].clone(), value["sub"].clone())
        };
        let t = tenant.to_string();
        let own_subjects = format!("{t}.{key}");
        let own = [format!("replies.{t}.*"), format!("_INBOX_{t}.>")];
        let publish = json!({"allow": [
            format!("jobs.{own_subjects}.interactive"),
            format!("jobs.{own_subjects}.background"),
            format!("control.{own_subjects}.cancel"),
            format!("control.{own_subjects}.steer"),
        ]});
        assert_eq!(of(true, false, false), (publish, json!({"allow": own})));
        let publish = json!({"allow": [format!("history.{own_subjects}")]});
        let [replies, inbox] = own.clone();
        let subscribe = [replies, inbox, format!("live.{t}.*"), format!("past.{t}.*")];
        assert_eq!(
            of(false, true, false),
            (publish, json!({"allow": subscribe}))
        );
        let publish = json!({"allow": [format!("control.{own_subjects}.decide")]});
        assert_eq!(of(false, false, true), (publish, json!({"allow": own})));
        let nothing = json!({"deny": [">"]});
        assert_eq!(of(false, false, false), (nothing.clone(), nothing));
    }
}
