use serde_json::{Value, json};

use super::*;
use crate::foreign_token::{ForeignAlgorithm, ForeignKeys, ForeignRules};

const SECRET: &[u8] = b"0123456789-abcdefghij-ABCDEFGHIJ";
const OTHER: &[u8] = b"another-secret-of-32-bytes-length";
const ED: &[u8] = b"-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIAEicKbe9ouYyQ/gS3OoVA4FZhxfXuYOict3DSEOEluV
-----END PRIVATE KEY-----
";
const OTHER_ED: &[u8] = b"-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIEJCDp5vP2dTvxdepCZI2It00cZj7brUbDoE71qv36Dx
-----END PRIVATE KEY-----
";

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
}

fn rules() -> TokenRules {
    TokenRules {
        issuer: "baton".into(),
        audience: "baton-api".into(),
        life: Duration::from_mins(10),
        leeway: Duration::from_secs(30),
    }
}

fn secret(secret: &'static [u8]) -> SigningKey<'static> {
    SigningKey {
        kid: None,
        algorithm: KeyAlgorithm::Hs256,
        secret,
    }
}

fn pair(kid: Option<&'static str>, pem: &'static [u8]) -> SigningKey<'static> {
    SigningKey {
        kid,
        algorithm: KeyAlgorithm::EdDsa,
        secret: pem,
    }
}

fn tokens(keys: &[SigningKey<'_>]) -> AccessTokens {
    AccessTokens::new(keys, rules()).unwrap()
}

fn somebody() -> NewAccess {
    NewAccess {
        user: UserId::new(at(0)),
        session: SessionId::new(at(0)),
        tenant: TenantId::new(at(0)),
    }
}

fn issued(tokens: &AccessTokens) -> String {
    tokens.issue(somebody(), at(0), Uuid::from_u128(7)).unwrap()
}

/// Signs a token with exactly this header and these claims.
fn forged(header: &Header, claims: &Value, key: &EncodingKey) -> String {
    jsonwebtoken::encode(header, claims, key).unwrap()
}

fn good_header(tokens: &AccessTokens) -> Header {
    let mut header = Header::new(tokens.signing.1);
    header.typ = Some(TYPE.into());
    header.kid = Some(tokens.signing.0.clone());
    header
}

fn good_claims() -> Value {
    let who = somebody();
    json!({
        "iss": "baton", "aud": "baton-api", "sub": who.user, "sid": who.session,
        "tenant": who.tenant, "exp": at(600).timestamp(), "nbf": at(0).timestamp(),
        "iat": at(0).timestamp(), "jti": Uuid::from_u128(7),
    })
}

#[test]
fn a_token_says_who_and_until_when_by_either_algorithm() {
    for tokens in [tokens(&[secret(SECRET)]), tokens(&[pair(None, ED)])] {
        let who = somebody();
        let token = tokens.issue(who, at(0), Uuid::from_u128(7)).unwrap();
        let claims = tokens.verify(&token, at(1)).unwrap();
        assert_eq!(
            (claims.sub, claims.sid, claims.tenant, claims.jti),
            (who.user, who.session, who.tenant, Uuid::from_u128(7))
        );
        assert_eq!(claims.expires_at(), at(600));
        assert_eq!(crate::issuer_of(&token).as_deref(), Some("baton"));
    }
}

#[test]
fn a_token_is_good_from_its_beginning_to_its_end_give_or_take_the_leeway() {
    let tokens = tokens(&[secret(SECRET)]);
    let token = issued(&tokens);
    let verdict = |seconds| tokens.verify(&token, at(seconds)).err();
    assert_eq!(verdict(-30), None);
    assert_eq!(verdict(-31), Some(TokenError::TooEarly));
    assert_eq!(verdict(629), None);
    assert_eq!(verdict(630), Some(TokenError::Expired));
}

#[test]
fn a_key_that_signs_no_more_is_accepted_until_it_is_taken_away() {
    let old = tokens(&[secret(SECRET)]);
    let token = issued(&old);
    let rotated = tokens(&[pair(Some("2026"), ED), secret(SECRET)]);
    assert!(rotated.verify(&token, at(1)).is_ok());
    let new = issued(&rotated);
    assert_eq!(crate::key_id_of(&new).as_deref(), Some("2026"));
    assert_eq!(old.verify(&new, at(1)), Err(TokenError::Key));
    let later = tokens(&[pair(Some("2026"), ED)]);
    assert_eq!(later.verify(&token, at(1)), Err(TokenError::Key));
    let same_name = AccessTokens::new(&[secret(SECRET), secret(SECRET)], rules());
    assert!(matches!(same_name, Err(KeyError::SameName(_))));
    assert!(matches!(
        AccessTokens::new(&[], rules()),
        Err(KeyError::None)
    ));
    assert!(matches!(
        AccessTokens::new(&[pair(None, SECRET)], rules()),
        Err(KeyError::Unreadable { .. })
    ));
}

#[test]
fn the_header_chooses_no_algorithm() {
    let tokens = tokens(&[pair(Some("k"), ED), secret(SECRET)]);
    let public = tokens.public_keys()[0]["x"].as_str().unwrap().to_owned();
    let mut header = good_header(&tokens);
    // The public key used as a secret: the classic confusion.
    header.alg = Algorithm::HS256;
    let confused = forged(
        &header,
        &good_claims(),
        &EncodingKey::from_secret(public.as_bytes()),
    );
    assert_eq!(tokens.verify(&confused, at(1)), Err(TokenError::Key));
    // A valid key with another algorithm of its family.
    header.alg = Algorithm::HS512;
    header.kid = Some(name_of_secret(SECRET));
    let other = forged(&header, &good_claims(), &EncodingKey::from_secret(SECRET));
    assert_eq!(tokens.verify(&other, at(1)), Err(TokenError::Key));
    // Unsigned: {"alg":"none","typ":"at+jwt","kid":"k"}.
    let body = issued(&tokens).split('.').nth(1).unwrap().to_owned();
    let none = format!("eyJhbGciOiJub25lIiwidHlwIjoiYXQrand0Iiwia2lkIjoiayJ9.{body}.");
    assert_eq!(tokens.verify(&none, at(1)), Err(TokenError::Malformed));
}

#[test]
fn a_token_must_be_of_our_type_name_a_key_and_ask_for_nothing_special() {
    let tokens = tokens(&[secret(SECRET)]);
    let key = EncodingKey::from_secret(SECRET);
    let verdict = |change: &dyn Fn(&mut Header)| {
        let mut header = good_header(&tokens);
        change(&mut header);
        tokens
            .verify(&forged(&header, &good_claims(), &key), at(1))
            .err()
    };
    assert_eq!(verdict(&|_| ()), None);
    let malformed = Some(TokenError::Malformed);
    assert_eq!(verdict(&|h| h.typ = Some("JWT".into())), malformed);
    assert_eq!(verdict(&|h| h.typ = None), malformed);
    assert_eq!(verdict(&|h| h.crit = Some(vec!["x".into()])), malformed);
    assert_eq!(verdict(&|h| h.kid = None), Some(TokenError::Key));
    assert_eq!(
        verdict(&|h| h.kid = Some("../etc/passwd".into())),
        Some(TokenError::Key)
    );
    for noise in ["", "a.b.c", "....", &"x".repeat(10_000), "eyJ.eyJ.x"] {
        assert_eq!(tokens.verify(noise, at(1)).err(), malformed, "{noise:.20}");
    }
}

#[test]
fn every_claim_is_required_with_its_type_and_its_value() {
    let tokens = tokens(&[secret(SECRET)]);
    let (header, key) = (good_header(&tokens), EncodingKey::from_secret(SECRET));
    let verdict = |claims: &Value| tokens.verify(&forged(&header, claims, &key), at(1)).err();
    assert_eq!(verdict(&good_claims()), None);
    for name in [
        "iss", "aud", "sub", "sid", "tenant", "exp", "nbf", "iat", "jti",
    ] {
        let mut claims = good_claims();
        claims.as_object_mut().unwrap().remove(name);
        assert_eq!(verdict(&claims), Some(TokenError::Claims), "without {name}");
        for nonsense in [
            json!(null),
            json!("soon"),
            json!(true),
            json!({}),
            json!(-1),
        ] {
            let mut claims = good_claims();
            claims[name] = nonsense.clone();
            assert!(verdict(&claims).is_some(), "{name}: {nonsense}");
        }
    }
    for (name, other) in [("iss", json!(["baton"])), ("aud", json!("another"))] {
        let mut claims = good_claims();
        claims[name] = other;
        assert_eq!(verdict(&claims), Some(TokenError::Claims), "{name}");
    }
}

#[test]
fn a_changed_token_or_another_key_of_the_same_name_is_refused() {
    let tokens = tokens(&[secret(SECRET)]);
    let header = good_header(&tokens);
    let foreign = forged(&header, &good_claims(), &EncodingKey::from_secret(OTHER));
    assert_eq!(tokens.verify(&foreign, at(1)), Err(TokenError::Signature));
    let (mine, theirs) = (issued(&tokens), foreign);
    let parts = |token: &str| token.split('.').map(str::to_owned).collect::<Vec<_>>();
    let (mine, theirs) = (parts(&mine), parts(&theirs));
    let spliced = format!("{}.{}.{}", mine[0], theirs[1], mine[2]);
    assert_eq!(tokens.verify(&spliced, at(1)), Err(TokenError::Signature));
}

#[test]
fn the_published_keys_verify_what_was_signed_and_hold_no_secret() {
    let tokens = tokens(&[pair(Some("k"), ED), secret(SECRET)]);
    let jwks = json!({ "keys": tokens.public_keys() });
    let keys = jwks["keys"].as_array().unwrap();
    assert_eq!(keys.len(), 1, "{jwks}");
    assert_eq!(
        (&keys[0]["kid"], &keys[0]["alg"], &keys[0]["use"]),
        (&json!("k"), &json!("EdDSA"), &json!("sig"))
    );
    assert!(keys[0].get("d").is_none() && !jwks.to_string().contains("oct"));

    let rules = ForeignRules {
        issuer: "baton".into(),
        audience: "baton-api".into(),
        algorithm: ForeignAlgorithm::EdDsa,
        leeway: Duration::ZERO,
    };
    let published = jwks.to_string();
    let foreign = ForeignKeys::read(published.as_bytes(), ForeignAlgorithm::EdDsa).unwrap();
    let token = issued(&tokens);
    let claims = foreign.verify(&token, &rules, at(1)).unwrap();
    assert_eq!(claims.expires_at, at(600));
    assert_eq!(
        foreign.verify(&token, &rules, at(600)),
        Err(TokenError::Expired)
    );
    let other_audience = ForeignRules {
        audience: "x".into(),
        ..rules.clone()
    };
    assert_eq!(
        foreign.verify(&token, &other_audience, at(1)),
        Err(TokenError::Claims)
    );
    let other_algorithm = ForeignRules {
        algorithm: ForeignAlgorithm::Rs256,
        ..rules.clone()
    };
    assert_eq!(
        foreign.verify(&token, &other_algorithm, at(1)),
        Err(TokenError::Key)
    );
    // Another key pair under the same name.
    let impostor = self::tokens(&[pair(Some("k"), OTHER_ED)]);
    assert_eq!(
        foreign.verify(&issued(&impostor), &rules, at(1)),
        Err(TokenError::Signature)
    );
    assert!(ForeignKeys::read(published.as_bytes(), ForeignAlgorithm::Rs256).is_err());
    let secret = json!({"keys": [{"kty": "oct", "kid": "k", "k": "AAAA"}]}).to_string();
    for algorithm in [ForeignAlgorithm::EdDsa, ForeignAlgorithm::Rs256] {
        assert!(ForeignKeys::read(secret.as_bytes(), algorithm).is_err());
    }
}
