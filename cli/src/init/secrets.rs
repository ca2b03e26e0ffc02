//! The secrets of a new deployment, and the files that hold them.

use std::fmt::Write as _;

use baton_nats::accounts::{DOOR, ROLES};
use baton_nats::{CurveKey, Issuer};

use super::certificate::Certificate;

/// The password with which the NATS servers of a cluster connect to one another.
const ROUTE: &str = "BATON_NATS_ROUTE_PASSWORD";
/// The user with which servers log in to PostgreSQL.
pub(super) const APP: &str = "baton";
/// The user that owns the schema.
pub(super) const OWNER: &str = "baton_owner";
/// The name of the database.
pub(super) const DATABASE: &str = "baton";

/// All secrets of a deployment, each for one purpose.
pub(super) struct Secrets {
    superuser_password: String,
    owner_password: String,
    app_password: String,
    jwt_secret: String,
    /// Each user of `accounts.conf` with its password.
    nats: Vec<(&'static str, String)>,
    route_password: String,
    issuer: Issuer,
    curve: CurveKey,
    upstream_key: String,
    grafana_password: String,
    certificate: Certificate,
}

impl Secrets {
    /// Draws all of them. The certificate is for `host`.
    pub(super) fn draw(host: &str) -> anyhow::Result<Self> {
        Ok(Self {
            superuser_password: password(),
            owner_password: password(),
            app_password: password(),
            jwt_secret: password(),
            nats: users().map(|user| (user, password())).collect(),
            route_password: password(),
            issuer: Issuer::generate(),
            curve: CurveKey::generate(),
            // LiteLLM requires this form of its master key.
            upstream_key: format!("sk-{}", password()),
            grafana_password: password(),
            certificate: Certificate::self_signed(host)?,
        })
    }

    /// Returns the paths of the files, relative to the deployment's folder.
    pub(super) fn paths() -> Vec<String> {
        let fixed = [
            ".env",
            "secrets/database_url",
            "secrets/database_migrate_url",
            "secrets/jwt_secret",
            "secrets/nats_callout_seed",
            "secrets/nats_callout_xkey_seed",
            "secrets/nats.env",
            "tls/server.pem",
            "tls/server.key",
        ];
        let of_users = users().map(password_path);
        fixed
            .map(str::to_owned)
            .into_iter()
            .chain(of_users)
            .collect()
    }

    /// Returns the files' texts, in the order of [`Secrets::paths`].
    pub(super) fn texts(&self) -> anyhow::Result<Vec<String>> {
        let fixed = [
            self.compose_environment()?,
            database_url(APP, &self.app_password),
            database_url(OWNER, &self.owner_password),
            self.jwt_secret.clone(),
            self.issuer.seed()?,
            self.curve.seed()?,
            self.server_environment(),
            self.certificate.chain.clone(),
            self.certificate.key.clone(),
        ];
        let of_users = self.nats.iter().map(|(_, password)| password.clone());
        Ok(fixed.into_iter().chain(of_users).collect())
    }

    /// Returns the variables of the files in `nats/`.
    fn server_environment(&self) -> String {
        let mut text = String::new();
        for (user, password) in &self.nats {
            let _ = writeln!(
                text,
                "BATON_NATS_{}_PASSWORD={password}",
                user.to_uppercase()
            );
        }
        let (issuer, curve) = (self.issuer.public_key(), self.curve.public_key());
        let _ = writeln!(text, "BATON_NATS_CALLOUT_ISSUER={issuer}");
        let _ = writeln!(text, "BATON_NATS_CALLOUT_XKEY={curve}");
        let _ = write!(text, "{ROUTE}={}", self.route_password);
        text
    }

    /// Returns the variables of `compose.yaml`.
    fn compose_environment(&self) -> anyhow::Result<String> {
        let template = include_str!("compose.env");
        let values = [
            ("SUPERUSER_PASSWORD", self.superuser_password.clone()),
            ("OWNER_PASSWORD", self.owner_password.clone()),
            ("APP_PASSWORD", self.app_password.clone()),
            ("JWT_SECRET", self.jwt_secret.clone()),
            ("NATS_SERVER", self.server_environment()),
            ("CALLOUT_SEED", self.issuer.seed()?),
            ("CALLOUT_XKEY_SEED", self.curve.seed()?),
            ("UPSTREAM_KEY", self.upstream_key.clone()),
            ("GRAFANA_PASSWORD", self.grafana_password.clone()),
        ];
        let filled = values
            .iter()
            .fold(template.to_owned(), |text, (name, value)| {
                text.replace(&format!("<{name}>"), value)
            });
        Ok(filled)
    }
}

/// Returns the path of the file with one NATS user's password.
pub(super) fn password_path(user: &str) -> String {
    format!("secrets/nats_{user}_password")
}

/// Returns all users of `accounts.conf`.
pub(super) fn users() -> impl Iterator<Item = &'static str> {
    ROLES.into_iter().chain(DOOR)
}

fn database_url(user: &str, password: &str) -> String {
    format!("postgres://{user}:{password}@localhost:5432/{DATABASE}")
}

/// Draws 256 random bits as letters and digits, which no URL, shell or configuration file has to
/// escape. The letter in front keeps nats-server from reading a number.
fn password() -> String {
    let bytes: [u8; 32] = rand::random();
    format!("p{}", data_encoding::HEXLOWER.encode(&bytes))
}
