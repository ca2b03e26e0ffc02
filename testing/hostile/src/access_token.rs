//! Access tokens: arbitrary ones from a client, and arbitrary content signed with our own key.

use std::sync::LazyLock;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use baton_identity::{
    AccessTokens, KeyAlgorithm, NewAccess, SigningKey, TokenRules, issuer_of, key_id_of,
};
use baton_protocol::{SessionId, TenantId, UserId};
use chrono::{DateTime, Utc};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Map, Value};
use sha2::Sha256;
use uuid::Uuid;

const SECRET: &[u8] = b"0123456789-abcdefghij-ABCDEFGHIJ";
const PAIR: &[u8] = b"-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIAEicKbe9ouYyQ/gS3OoVA4FZhxfXuYOict3DSEOEluV
-----END PRIVATE KEY-----
";
const NOW: i64 = 1_800_000_000;
const LEEWAY: i64 = 30;

struct Fixed {
    tokens: AccessTokens,
    /// The single token that was signed with the key pair.
    by_pair: String,
}

static FIXED: LazyLock<Fixed> = LazyLock::new(|| {
    let secret = SigningKey {
        kid: Some("s"),
        algorithm: KeyAlgorithm::Hs256,
        secret: SECRET,
    };
    let pair = || SigningKey {
        kid: Some("p"),
        algorithm: KeyAlgorithm::EdDsa,
        secret: PAIR,
    };
    let rules = || TokenRules {
        issuer: "baton".into(),
        audience: "baton-api".into(),
        life: Duration::from_mins(10),
        leeway: Duration::from_secs(LEEWAY.unsigned_abs()),
    };
    let id = Uuid::from_u128(0x0189_0a5d_ac96_774b_bcce_b302_099a_8057);
    let somebody = NewAccess {
        user: UserId::from_uuid(id),
        session: SessionId::from_uuid(id),
        tenant: TenantId::from_uuid(id),
    };
    let by_pair = AccessTokens::new(&[pair()], rules())
        .expect("a good key")
        .issue(somebody, now(), id)
        .expect("a good key signs");
    let tokens = AccessTokens::new(&[secret, pair()], rules()).expect("good keys");
    Fixed { tokens, by_pair }
});

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(NOW, 0).expect("a time")
}

/// Checks that every accepted token is also valid by a plain reading of RFC 7515 and 9068. This
/// holds for the input as a token, and for the input as a header and claims (a line each) that our
/// own key signs.
pub fn access_token(data: &[u8]) {
    if let Ok(token) = std::str::from_utf8(data) {
        judge(token);
    }
    let mut lines = data.splitn(2, |byte| *byte == b'\n');
    let (header, claims) = (
        lines.next().unwrap_or_default(),
        lines.next().unwrap_or_default(),
    );
    let signed = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header),
        URL_SAFE_NO_PAD.encode(claims)
    );
    judge(&format!(
        "{signed}.{}",
        URL_SAFE_NO_PAD.encode(mac(&signed))
    ));
    // With the signature of another token, and without one.
    let by_pair = FIXED.by_pair.rsplit('.').next().unwrap_or_default();
    judge(&format!("{signed}.{by_pair}"));
    judge(&format!("{signed}."));
}

fn judge(token: &str) {
    let _ = (issuer_of(token), key_id_of(token));
    if let Ok(claims) = FIXED.tokens.verify(token, now()) {
        assert!(is_good(token), "{token} is no token");
        assert!(claims.expires_at() > DateTime::UNIX_EPOCH);
        assert_eq!(issuer_of(token).as_deref(), Some("baton"));
    }
}

fn mac(signed: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET).expect("any length will do");
    mac.update(signed.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn object(part: &str) -> Option<Map<String, Value>> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

fn is_good(token: &str) -> bool {
    let parts: Vec<&str> = token.split('.').collect();
    let [header, claims, signature] = parts[..] else {
        return false;
    };
    let signed = &token[..token.len() - signature.len() - 1];
    let (Some(header), Some(claims)) = (object(header), object(claims)) else {
        return false;
    };
    let says = |of: &Map<String, Value>, name: &str, value: &str| {
        of.get(name).and_then(Value::as_str) == Some(value)
    };
    let genuine = if says(&header, "kid", "s") {
        says(&header, "alg", "HS256")
            && URL_SAFE_NO_PAD
                .decode(signature)
                .is_ok_and(|given| given == mac(signed))
    } else {
        says(&header, "kid", "p") && says(&header, "alg", "EdDSA") && token == FIXED.by_pair
    };
    let id = |name: &str| {
        let text = claims.get(name).and_then(Value::as_str);
        text.is_some_and(|text| text.parse::<Uuid>().is_ok())
    };
    let time = |name: &str| claims.get(name).and_then(Value::as_i64);
    genuine
        && says(&header, "typ", "at+jwt")
        && !header.contains_key("crit")
        && !header.contains_key("b64")
        && says(&claims, "iss", "baton")
        && says(&claims, "aud", "baton-api")
        && ["sub", "sid", "tenant", "jti"].into_iter().all(id)
        && time("iat").is_some()
        // A number beyond i64 is far in the future.
        && claims["exp"].as_u64().is_some_and(|exp| exp > (NOW - LEEWAY).unsigned_abs())
        && time("nbf").is_some_and(|nbf| nbf <= NOW + LEEWAY)
}
