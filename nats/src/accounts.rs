//! The users of the delivered `accounts.conf`, and that file with its values filled in for servers
//! that Baton itself starts.

use std::fmt;

/// The users of `accounts.conf` that belong to one process each; [`DOOR`] has the others.
pub const ROLES: [&str; 5] = ["ingress", "worker", "scheduler", "migrate", "operator"];
/// The user of the system account, which closes connections.
pub const SYSTEM: &str = "system";
/// An ingress's user for reading programs' messages, which may do nothing else.
pub const PROGRAMS: &str = "programs";
/// An ingress's user for servers' questions about new connections, which may do nothing else.
pub const CALLOUT: &str = "callout";
/// The users that an ingress with a door for programs has besides its own.
pub const DOOR: [&str; 3] = [SYSTEM, PROGRAMS, CALLOUT];

/// Returns the prefix of this user's reply subjects, the only ones that it may subscribe to.
pub fn inbox_prefix(user: &str) -> String {
    format!("_INBOX_{user}")
}

/// The values that `accounts.conf` takes from the server's environment. Debug omits the passwords.
#[derive(Clone)]
pub struct AccountsConf {
    /// The public key of the issuer that signs programs' permissions:
    /// [`crate::Issuer::public_key`].
    pub issuer: String,
    /// The public half of the curve key that questions are sealed for, if any:
    /// [`crate::CurveKey::public_key`].
    pub xkey: Option<String>,
    /// The prefix of all passwords: a user's password is this, a hyphen, and the user's name.
    pub password: String,
    /// More users with every permission in the account of the roles: for tests and tools.
    pub unlimited: Vec<&'static str>,
}

/// The line that stays a comment if there is no curve key.
const XKEY: &str = "# xkey: $BATON_NATS_CALLOUT_XKEY";
/// The line before which more users are inserted.
const OWN_USERS: &str = "# Users of your own go here, and into `auth_users` below.";

impl AccountsConf {
    /// Returns a user's password.
    pub fn password_of(&self, user: &str) -> String {
        format!("{}-{user}", self.password)
    }

    /// Returns the file with every value filled in.
    pub fn text(&self) -> String {
        let mut text = include_str!("../accounts.conf").to_owned();
        for user in ROLES.into_iter().chain(DOOR) {
            let variable = format!("$BATON_NATS_{}_PASSWORD", user.to_uppercase());
            text = text.replace(&variable, &format!("\"{}\"", self.password_of(user)));
        }
        for user in &self.unlimited {
            let password = self.password_of(user);
            let entry = format!("{{ user: {user}, password: \"{password}\" }}\n      {OWN_USERS}");
            text = text
                .replace(OWN_USERS, &entry)
                .replace("auth_users: [", &format!("auth_users: [{user}, "));
        }
        if let Some(xkey) = &self.xkey {
            text = text.replace(XKEY, &format!("xkey: {xkey}"));
        }
        text.replace("$BATON_NATS_CALLOUT_ISSUER", &self.issuer)
    }
}

impl fmt::Debug for AccountsConf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccountsConf")
            .field("issuer", &self.issuer)
            .field("xkey", &self.xkey)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_to_the_environment() {
        let conf = AccountsConf {
            issuer: "ISSUER".into(),
            xkey: Some("XKEY".into()),
            password: "p".into(),
            unlimited: vec!["tool"],
        };
        let text = conf.text();
        assert!(text.contains("user: tool, password: \"p-tool\""));
        assert!(text.contains("auth_users: [tool, ingress"));
        assert!(text.contains("\n    xkey: XKEY\n"));
        let plain = AccountsConf { xkey: None, ..conf };
        assert!(plain.text().contains(&format!("\n    {XKEY}\n")));
        let code = text.lines().filter(|line| !line.trim().starts_with('#'));
        assert!(!code.clone().any(|line| line.contains("$BATON")));
        for user in ROLES {
            let password = format!("password: \"p-{user}\"");
            assert!(text.contains(&password), "{user}");
        }
        for user in DOOR {
            let password = format!("password: \"p-{user}\"");
            assert!(text.contains(&password), "{user}");
        }
        for user in ROLES.into_iter().chain([SYSTEM]) {
            let inbox = format!("\"{}.>\"", inbox_prefix(user));
            assert!(text.contains(&inbox), "{user}");
        }
    }
}
