//! The scopes of API keys, and the role that a person needs for each.

use std::borrow::Cow;

use baton_protocol::Role;

/// A scope that a route demands.
pub trait Scope: Send + Sync + 'static {
    /// The scope's name, such as `runs:read`.
    const NAME: &'static str;
}

macro_rules! scopes {
    ($($(#[$doc:meta])* $name:ident = $text:literal from $role:ident),+ $(,)?) => {
        $($(#[$doc])* pub enum $name {}
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
    /// List models and tools.
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
pub const ALL_SCOPES: &str = "*";

/// The scopes of a credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scopes(Vec<Cow<'static, str>>);

impl Scopes {
    /// Returns a role's scopes; an owner has all, including those of later versions.
    pub fn of_role(role: Role) -> Self {
        if role == Role::Owner {
            return Self(vec![Cow::Borrowed(ALL_SCOPES)]);
        }
        let scopes = LEAST
            .iter()
            .filter(|(_, least)| *least <= role)
            .map(|(scope, _)| Cow::Borrowed(*scope));
        Self(scopes.collect())
    }

    /// The scopes of a key, as stored.
    pub fn stored(scopes: Vec<String>) -> Self {
        Self(scopes.into_iter().map(Cow::Owned).collect())
    }

    /// Returns whether `scope` is among them.
    pub fn has(&self, scope: &str) -> bool {
        self.0.iter().any(|own| own == scope || own == ALL_SCOPES)
    }

    /// Returns whether all of `others` are among them.
    pub fn cover(&self, others: &Self) -> bool {
        others.0.iter().all(|other| self.has(other))
    }

    /// Returns their names.
    pub fn to_strings(&self) -> Vec<String> {
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
