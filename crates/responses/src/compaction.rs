//! Compactions: a summary that replaces the items of a conversation, sealed for its tenant.

use std::fmt;

use baton_openai::Message;
use baton_protocol::RunId;
use baton_protocol::compaction::{SUMMARY, SUMMARY_PROMPT};
use crypto_secretbox::aead::{Aead as _, KeyInit as _};
use crypto_secretbox::{Key, Nonce, XSalsa20Poly1305};
use data_encoding::BASE64URL_NOPAD;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::ids::{ItemKind, item_id, response_id};
use crate::items::{Item, to_items, with_input_ids};
use crate::response::UsageObject;

/// The bytes that a sealed summary begins with.
pub const NONCE_BYTES: usize = 24;

/// A summary that the cipher did not encrypt, so that there is nothing to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the summary cannot be encrypted")]
pub struct NotSealed;

/// The key of a tenant's compactions: every server has the same one, and another tenant has another.
pub struct SealingKey([u8; 32]);

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealingKey")
    }
}

impl SealingKey {
    /// Makes a key of random bytes.
    pub const fn new(key: [u8; 32]) -> Self {
        Self(key)
    }

    fn cipher(&self) -> XSalsa20Poly1305 {
        XSalsa20Poly1305::new(&Key::from(self.0))
    }

    /// Seals a summary; `nonce` is random.
    pub fn seal(&self, summary: &str, nonce: [u8; NONCE_BYTES]) -> Result<String, NotSealed> {
        let sealed = self
            .cipher()
            .encrypt(&Nonce::from(nonce), summary.as_bytes())
            .map_err(|_| NotSealed)?;
        Ok(BASE64URL_NOPAD.encode(&[&nonce[..], &sealed].concat()))
    }

    /// Seals the summary of a step. Whichever server seals it, and however often, the result is the same:
    /// the nonce comes from everything that is sealed, and from the key, so that it gives nothing away.
    pub fn seal_step(&self, run: RunId, step: u32, summary: &str) -> Result<String, NotSealed> {
        let mut hash = Sha256::new();
        hash.update(self.0);
        hash.update(run.as_uuid().as_bytes());
        hash.update(step.to_be_bytes());
        hash.update(summary.as_bytes());
        let nonce = *hash.finalize().first_chunk().ok_or(NotSealed)?;
        self.seal(summary, nonce)
    }

    /// Opens a summary; `None` if this key did not seal it, or somebody changed it.
    pub fn open(&self, sealed: &str) -> Option<String> {
        let bytes = BASE64URL_NOPAD.decode(sealed.as_bytes()).ok()?;
        let (nonce, sealed) = bytes.split_first_chunk::<NONCE_BYTES>()?;
        let summary = self.cipher().decrypt(&Nonce::from(*nonce), sealed).ok()?;
        String::from_utf8(summary).ok()
    }
}

/// Returns the message that a summary becomes for the model. It is a user's, because a summary may repeat
/// what others have written, and must not speak as the system.
pub(crate) fn summary_message(summary: &str) -> Message {
    Message::text("user", format!("{SUMMARY}{summary}"))
}

/// Returns the message that asks for a summary of those before it.
pub fn compaction_prompt() -> Message {
    Message::text("user", SUMMARY_PROMPT)
}

/// The answer of `POST /v1/responses/compact`.
#[derive(Debug, Serialize)]
pub struct Compaction {
    id: String,
    object: &'static str,
    created_at: i64,
    output: Vec<Item>,
    usage: UsageObject,
}

/// Makes the item of a summary that a step of a response has made.
pub fn compaction_item(run: RunId, step: u32, encrypted_content: String) -> Item {
    Item::Compaction {
        id: item_id(run, step, ItemKind::Compaction),
        encrypted_content,
    }
}

impl Compaction {
    /// Makes the answer of a run that has summarised `messages`: the users' messages among them, then the
    /// sealed summary of all.
    pub fn new(
        run: RunId,
        created_at: i64,
        messages: &[Message],
        encrypted_content: String,
        usage: UsageObject,
    ) -> Self {
        let of_users = messages.iter().filter(|message| {
            // The new summary contains the earlier one.
            message.role == "user" && !message.plain_text().starts_with(SUMMARY)
        });
        let of_users: Vec<_> = of_users.cloned().collect();
        let mut output = to_items(&of_users);
        with_input_ids(run, &mut output);
        output.push(Item::Compaction {
            id: format!("cmp_{run}"),
            encrypted_content,
        });
        Self {
            id: response_id(run),
            object: "response.compaction",
            created_at,
            output,
            usage,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> SealingKey {
        SealingKey::new([byte; 32])
    }

    #[test]
    fn only_its_own_key_opens_a_summary_and_only_as_it_was_sealed() {
        let sealed = key(1).seal("They want 127.05 \u{1f642}.", [7; NONCE_BYTES]);
        let sealed = sealed.unwrap();
        assert!(!sealed.contains("127"));
        assert_eq!(
            key(1).open(&sealed).as_deref(),
            Some("They want 127.05 \u{1f642}.")
        );
        assert_eq!(key(2).open(&sealed), None, "another tenant's");
        for at in 0..sealed.len() {
            let mut changed = sealed.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            // The last character has bits that encode nothing.
            let opened = key(1).open(&changed);
            assert_eq!(opened, None, "changed at {at}");
        }
        for cut in 0..sealed.len() {
            assert_eq!(key(1).open(&sealed[..cut]), None, "cut at {cut}");
        }
        assert_eq!(format!("{:?}", key(1)), "SealingKey");
    }

    #[test]
    fn the_summary_of_a_step_is_sealed_the_same_on_every_server() {
        let run: RunId = "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap();
        let sealed = |of: u8, step, summary: &str| key(of).seal_step(run, step, summary).unwrap();
        let first = sealed(1, 2, "one");
        assert_eq!(first, sealed(1, 2, "one"));
        assert_eq!(key(1).open(&first).as_deref(), Some("one"));
        assert_eq!(key(2).open(&first), None, "another tenant's");
        for other in [
            sealed(1, 3, "one"),
            sealed(1, 2, "two"),
            sealed(2, 2, "one"),
        ] {
            assert_ne!(first[..32], other[..32], "no nonce is used twice");
        }
    }

    #[test]
    fn users_words_stay_and_an_earlier_summary_is_part_of_the_new_one() {
        let run: RunId = "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap();
        let messages = [
            summary_message("earlier"),
            Message::text("user", "one"),
            Message::text("assistant", "two"),
            Message::text("user", "three"),
        ];
        let usage = crate::usage_object(baton_protocol::Usage::default(), &serde_json::Map::new());
        let compaction = Compaction::new(run, 5, &messages, "sealed".into(), usage);
        let json = serde_json::to_value(&compaction).unwrap();
        assert_eq!(json["object"], "response.compaction");
        let output = json["output"].as_array().unwrap();
        assert_eq!(output.len(), 3);
        assert_eq!(output[0]["content"][0]["text"], "one");
        assert_eq!(output[1]["content"][0]["text"], "three");
        assert_eq!(
            output[2],
            serde_json::json!({"type": "compaction", "id": format!("cmp_{run}"), "encrypted_content": "sealed"})
        );
        for item in output {
            crate::checker::check_item(item).unwrap();
        }
    }
}
