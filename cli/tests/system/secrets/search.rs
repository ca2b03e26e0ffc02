//! Searches the output and the data of Baton for secrets, in all forms in which they spread.

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use baton_harness::client::{Answer, Client};
use baton_harness::stack::Role;
use serde_json::{Value, json};

/// A secret that only its owner may see.
#[derive(Debug, Clone)]
pub(super) struct Secret {
    what: &'static str,
    value: String,
}

impl Secret {
    pub(super) fn new(what: &'static str, value: impl Into<String>) -> Self {
        let value = value.into();
        assert!(value.len() >= 12, "{what} could be anywhere by chance");
        Self { what, value }
    }

    /// Returns its forms: unchanged, in a URL, in hexadecimal, and in base64 at each of the three
    /// offsets.
    pub(super) fn forms(&self) -> Vec<String> {
        let bytes = self.value.as_bytes();
        let escaped: String = bytes
            .iter()
            .map(|byte| match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                    char::from(*byte).to_string()
                }
                _ => format!("%{byte:02X}"),
            })
            .collect();
        let quoted = json!(self.value).to_string();
        let mut forms = vec![
            self.value.clone(),
            escaped.replace("%20", "+"),
            escaped,
            quoted[1..quoted.len() - 1].to_owned(),
            hex::encode(bytes),
        ];
        for offset in 0..3 {
            let shifted = [&b"xx"[..offset], bytes].concat();
            // The first and the last characters depend on the bytes around the secret.
            let whole = |text: String| text[4..text.len() - 3].to_owned();
            forms.push(whole(STANDARD_NO_PAD.encode(&shifted)));
            forms.push(whole(URL_SAFE_NO_PAD.encode(&shifted)));
        }
        forms.sort();
        forms.dedup();
        forms
    }
}

/// The collected output, by place.
#[derive(Default)]
pub(super) struct Said(BTreeMap<&'static str, Vec<u8>>);

impl Said {
    pub(super) fn add(&mut self, place: &'static str, text: impl AsRef<[u8]>) {
        let all = self.0.entry(place).or_default();
        all.extend_from_slice(text.as_ref());
        all.push(b'\n');
    }

    /// Records an answer with its headers.
    pub(super) fn answer(&mut self, answer: &Answer) {
        self.add("answers", format!("{:?}", answer.headers));
        self.add("answers", &answer.body);
    }

    /// Sends a GET request, records the answer, and returns its status.
    pub(super) async fn get(&mut self, client: &Client, path: &str) -> u16 {
        let answer = client.get(path).await.unwrap();
        self.answer(&answer);
        answer.status.as_u16()
    }

    /// Sends a POST request, records the answer, and returns its status.
    pub(super) async fn post(&mut self, client: &Client, path: &str, body: &Value) -> u16 {
        self.post_with(client, path, &[], body).await
    }

    /// As [`Said::post`], with further headers.
    pub(super) async fn post_with(
        &mut self,
        client: &Client,
        path: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> u16 {
        let answer = client.post_with(path, headers, body).await.unwrap();
        self.answer(&answer);
        answer.status.as_u16()
    }

    /// Waits for a run's end, records every answer about it, and returns its state.
    pub(super) async fn run(&mut self, client: &Client, model: &str) -> String {
        let body = json!({"model": model, "input": "Please.", "params": {"max_tokens": 50}});
        let id = client.submit(&body).await.unwrap();
        let run = client.ended(&id).await.unwrap();
        self.add("answers", run.to_string());
        for event in client.all_events(&id).await.unwrap() {
            self.add("events", event.event.to_string());
        }
        run["status"].as_str().unwrap().to_owned()
    }

    pub(super) async fn metrics(&mut self, roles: &[&Role]) {
        for role in roles {
            self.add("metrics", role.metrics().await.unwrap());
        }
    }

    /// Records every file below a folder.
    pub(super) fn disk(&mut self, place: &'static str, folder: &Path) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                self.disk(place, &entry.path());
            } else {
                // Files may be allocated larger than their content.
                let mut file = std::fs::read(entry.path()).unwrap();
                let end = file.iter().rposition(|byte| *byte != 0);
                file.truncate(end.map_or(0, |end| end + 1));
                self.add(place, file);
            }
        }
    }

    /// Fails if a place has no such text, because then the place is not really searched.
    pub(super) fn assert_heard(&self, place: &str, part: &str) {
        let said = self.0.get(place).map(Vec::as_slice).unwrap_or_default();
        assert!(
            find(said, part.as_bytes()).is_some(),
            "the {place} do not have {part}"
        );
    }

    /// Fails if one of these words is at one of these places.
    pub(super) fn assert_unmentioned(&self, places: &[&str], words: &[&str]) {
        for place in places {
            for word in words {
                if let Some(at) = find(&self.0[place], word.as_bytes()) {
                    let around = self.around(place, at);
                    panic!("{word} in the {place}: …{around}…");
                }
            }
        }
    }

    fn around(&self, place: &str, at: usize) -> String {
        let text = &self.0[place];
        let around = &text[at.saturating_sub(200)..text.len().min(at + 200)];
        String::from_utf8_lossy(around).into_owned()
    }

    /// Fails with every place that has one of the secrets, except for the given ones.
    pub(super) fn assert_silent(&self, secrets: &[Secret], except: &[(&str, &str)]) {
        let mut leaks = Vec::new();
        for secret in secrets {
            for (place, text) in &self.0 {
                if except.contains(&(secret.what, place)) {
                    continue;
                }
                for form in secret.forms() {
                    if let Some(at) = find(text, form.as_bytes()) {
                        let around = self.around(place, at);
                        leaks.push(format!("{} in the {place}: …{around}…", secret.what));
                        break;
                    }
                }
            }
        }
        assert!(leaks.is_empty(), "{}", leaks.join("\n\n"));
    }
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    memchr::memmem::find(text, part)
}

#[test]
fn a_secret_is_found_in_every_form() {
    let secret = Secret::new("a password", "horse/battery+staple \"9\"");
    let basic = base64::engine::general_purpose::STANDARD.encode(format!("anna:{}", secret.value));
    for text in [
        "https://x/?p=horse%2Fbattery%2Bstaple%20%229%22".to_owned(),
        json!({"p": secret.value}).to_string(),
        format!("Basic {basic}"),
        "686f7273652f626174746572792b737461706c6520223922".to_owned(),
    ] {
        let mut said = Said::default();
        said.add("answers", &text);
        let secrets = [secret.clone()];
        let found = std::panic::catch_unwind(|| said.assert_silent(&secrets, &[]));
        assert!(found.is_err(), "{text}");
        said.assert_silent(&secrets, &[("a password", "answers")]);
    }
    Said::default().assert_silent(&[secret], &[]);
}
