//! People who sign in, refresh their sessions and sign out, and a client that guesses passwords.

use std::sync::Arc;
use std::time::Duration;

use baton_invariants::Invariant;
use http::{Method, StatusCode};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::load::{Load, code_of, whole};
use crate::checker::What;

/// The kinds of actions of people; each is counted by its name.
pub const DOINGS: [&str; 4] = ["signed in", "refreshed", "signed out", "guessed a password"];
const EMAIL: &str = "anna@example.org";
const PASSWORD: &str = "correct horse battery staple";

/// A person, and an attacker who pretends to be one.
#[derive(Debug)]
pub struct People {
    /// The state that all clients share.
    pub load: Arc<Load>,
    /// The token with which the tenant's first owner registers.
    pub bootstrap: String,
}

impl People {
    /// Signs in and out until it is stopped.
    pub async fn live(self, seed: u64, stop: CancellationToken) {
        let mut random = StdRng::seed_from_u64(seed);
        let living = async {
            let registration = json!({
                "email": EMAIL, "password": PASSWORD, "token": self.bootstrap,
            });
            // A repetition learns that the person is registered already.
            while !matches!(
                self.ask(&mut random, "/v1/auth/register", "", &registration).await,
                Some((status, _)) if status.is_success() || status == StatusCode::CONFLICT
                    || status == StatusCode::BAD_REQUEST
            ) {
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
            loop {
                if random.random_bool(0.3) {
                    self.guess(&mut random).await;
                } else {
                    self.visit(&mut random).await;
                }
                tokio::time::sleep(Duration::from_millis(random.random_range(500..3_000))).await;
            }
        };
        stop.run_until_cancelled(living).await;
    }

    async fn visit(&self, random: &mut StdRng) {
        let login = json!({"email": EMAIL, "password": PASSWORD});
        let Some((StatusCode::OK, mut tokens)) =
            self.ask(random, "/v1/auth/login", "", &login).await
        else {
            return;
        };
        self.did(DOINGS[0]);
        for _ in 0..random.random_range(0..4) {
            let refresh = json!({"refresh_token": tokens["refresh_token"]});
            match self.ask(random, "/v1/auth/refresh", "", &refresh).await {
                Some((StatusCode::OK, next)) => tokens = next,
                // Repeated within the grace, the refresh gets the same answer.
                _ => continue,
            }
            self.did(DOINGS[1]);
        }
        let logout = json!({"refresh_token": tokens["refresh_token"]});
        if let Some((status, _)) = self.ask(random, "/v1/auth/logout", "", &logout).await
            && status.is_success()
        {
            self.did(DOINGS[2]);
        }
    }

    async fn guess(&self, random: &mut StdRng) {
        let password = format!("a guess of {}", random.random_range(0..1_000_000));
        let login = json!({"email": EMAIL, "password": password});
        match self.ask(random, "/v1/auth/login", "", &login).await {
            Some((status, _)) if status.is_success() => {
                let found = "a wrong password let somebody in".to_owned();
                let invariant = Invariant::I18;
                self.load.recorder.note(What::Breach { invariant, found });
            }
            Some((StatusCode::UNAUTHORIZED | StatusCode::TOO_MANY_REQUESTS, _)) => {
                self.did(DOINGS[3]);
            }
            _ => {}
        }
    }

    fn did(&self, kind: &str) {
        let kind = kind.to_owned();
        self.load.recorder.note(What::Did { kind });
    }

    async fn ask(
        &self,
        random: &mut StdRng,
        path: &str,
        token: &str,
        body: &Value,
    ) -> Option<(StatusCode, Value)> {
        let server = self.load.server(random.random()).with_key(token);
        let asked = whole(server.send(Method::POST, path, &[], Some(body))).await;
        let Ok((status, answer)) = asked else {
            self.load.unanswered();
            return None;
        };
        if !status.is_success() {
            self.load.refused(status, code_of(&answer));
        }
        Some((status, answer))
    }
}
