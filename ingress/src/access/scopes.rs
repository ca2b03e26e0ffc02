//! What a credential may do, in words, and from which role on a person may do it.

use std::borrow::Cow;

use baton_protocol::Role;

/// What a route demands.
pub(crate) trait Scope: Send + Sync + 'static {
    const NAME: &'static str;
}

macro_rules! scopes {
    ($($(#[$doc:meta])* $name:ident = $text:literal from $role:ident),+ $(,)?) => {
        $($(#[$doc])* pub(crate) enum $name {}
        impl Scope for $name { const NAME: &'static str = $text; })+
        /// Every scope that a key can have; `*` stands for all.
        pub const SCOPES: &[&str] = &[$($text),+];
        /// Every scope with the least role that has it.
        const LEAST: &[(&str, Role)] = &[$(($text, Role::$role)),+];
    };
}

scopes! {
    /// Starting and cancelling runs.
    RunsWrite = "runs:write" from Member,
    /// Reading runs and their events.
    RunsRead = "runs:read" from Viewer,
    /// Deciding what parked runs wait for.
    ApprovalsWrite = "approvals:write" from Member,
    /// Listing models.
    ModelsRead = "models:read" from Viewer,
    /// Reading agents and their versions.
    AgentsRead = "agents:read" from Viewer,
    /// Making, changing and deleting agents.
    AgentsWrite = "agents:write" from Admin,
    /// Listing API keys.
    KeysRead = "keys:read" from Admin,
    /// Making, rotating and revoking API keys.
    KeysWrite = "keys:write" from Admin,
    /// Reading what was used up.
    UsageRead = "usage:read" from Admin,
    /// Listing members and invites.
    MembersRead = "members:read" from Admin,
    /// Inviting people, changing their roles, removing them.
    MembersWrite = "members:write" from Admin,
}

/// The scope that stands for all.
pub(crate) const ALL: &str = "*";

/// The scopes of a credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scopes(Vec<Cow<'static, str>>);

impl Scopes {
    /// A role's; an owner has all, those of later versions too.
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

    /// A key's, as stored.
    pub(crate) fn stored(scopes: Vec<String>) -> Self {
        Self(scopes.into_iter().map(Cow::Owned).collect())
    }

    /// Whether it is among them.
    pub(crate) fn has(&self, scope: &str) -> bool {
        self.0.iter().any(|own| own == scope || own == ALL)
    }

    /// Whether all of these are among them.
    pub(crate) fn cover(&self, others: &Self) -> bool {
        others.0.iter().all(|other| self.has(other))
    }

    /// As words.
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
