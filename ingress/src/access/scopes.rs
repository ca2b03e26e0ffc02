//! The scopes of credentials, and the least role that has each.

use std::borrow::Cow;

use baton_protocol::Role;

/// A scope that a route demands.
pub(crate) trait Scope: Send + Sync + 'static {
    const NAME: &'static str;
}

macro_rules! scopes {
    ($($(#[$doc:meta])* $name:ident = $text:literal from $role:ident),+ $(,)?) => {
        $($(#[$doc])* pub(crate) enum $name {}
        impl Scope for $name { const NAME: &'static str = $text; })+
        /// Every scope that a key can have; `*` means all.
        pub const SCOPES: &[&str] = &[$($text),+];
        /// Every scope with the least role that has it.
        const LEAST: &[(&str, Role)] = &[$(($text, Role::$role)),+];
    };
}

scopes! {
    /// Start and cancel runs.
    RunsWrite = "runs:write" from Member,
    /// Read runs and their events.
    RunsRead = "runs:read" from Viewer,
    /// Decide the approvals and tool calls that parked runs wait for.
    ApprovalsWrite = "approvals:write" from Member,
    /// List models.
    ModelsRead = "models:read" from Viewer,
    /// Read agents and their versions.
    AgentsRead = "agents:read" from Viewer,
    /// Create, change and delete agents.
    AgentsWrite = "agents:write" from Admin,
    /// List API keys.
    KeysRead = "keys:read" from Admin,
    /// Create, rotate and revoke API keys.
    KeysWrite = "keys:write" from Admin,
    /// Read usage.
    UsageRead = "usage:read" from Admin,
    /// List members and invites.
    MembersRead = "members:read" from Admin,
    /// Invite people, change their roles, and remove them.
    MembersWrite = "members:write" from Admin,
}

/// The scope that means all scopes.
pub(crate) const ALL: &str = "*";

/// The scopes of a credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scopes(Vec<Cow<'static, str>>);

impl Scopes {
    /// Returns the scopes of a role. An owner has all, including those of later versions.
    pub(crate) fn of_role(role: Role) -> Self {
        if role == Role::Owner {
            return Self(vec![Cow::Borrowed(ALL)]);
        }
        let scopes = LEAST
            .iter()
            .filter(|(_, least)| *least <= role)
            .map(|(scope, _)| Cow::Borrowed(*scope));
        Self(scopes.collect())
    }

    /// Returns the scopes of a key as stored.
    pub(crate) fn stored(scopes: Vec<String>) -> Self {
        Self(scopes.into_iter().map(Cow::Owned).collect())
    }

    /// Returns whether the scope is among them.
    pub(crate) fn has(&self, scope: &str) -> bool {
        self.0.iter().any(|own| own == scope || own == ALL)
    }

    /// Returns whether all of these are among them.
    pub(crate) fn cover(&self, others: &Self) -> bool {
        others.0.iter().all(|other| self.has(other))
    }

    pub(crate) fn to_strings(&self) -> Vec<String> {
        self.0.iter().map(ToString::to_string).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_higher_role_may_do_all_that_a_lower_one_may() {
        for (lower, higher) in Role::ALL.into_iter().zip(Role::ALL.into_iter().skip(1)) {
            let higher = Scopes::of_role(higher);
            for scope in Scopes::of_role(lower).to_strings() {
                assert!(higher.has(&scope), "{scope}");
            }
        }
    }

    #[test]
    fn roles_have_what_is_documented_and_nothing_else() {
        let viewer = Scopes::of_role(Role::Viewer);
        assert_eq!(
            viewer.to_strings(),
            ["runs:read", "models:read", "agents:read"]
        );
        let member = Scopes::of_role(Role::Member);
        assert!(member.has("runs:write") && member.has("approvals:write"));
        assert!(!member.has("keys:read") && !member.has("later:on"));
        let admin = Scopes::of_role(Role::Admin);
        assert!(admin.has("keys:write") && admin.has("members:write") && !admin.has("later:on"));
        assert!(Scopes::of_role(Role::Owner).has("later:on"));
    }
}
