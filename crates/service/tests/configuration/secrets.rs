//! Secrets: their sources, that they do not show, and keys that prove nothing.

use baton_service::Secret;

use super::{assert_mistakes, load};

#[test]
fn no_secret_shows_in_debug_output_printed_configuration_or_messages() {
    let environment = [
        ("DATABASE_URL", "postgres://app:hush-hush-1-abc@db/baton"),
        ("DATABASE_MIGRATE_URL", "hush-2"),
        ("NATS_URL", "nats://hush-hush-3-abc@broker:4222"),
        ("JWT_SECRET", "hush-4-0123456789-abcdefghij-ABCDEF"),
        ("LLM_API_KEY", "hush-5"),
        ("BATON_NATS__TOKEN", "hush-hush-6-abc"),
        ("WEB_SEARCH_API_KEY", "hush-9"),
    ];
    let errors = load("", &environment).unwrap_err().to_string();
    assert!(
        errors.contains("DATABASE_MIGRATE_URL") && !errors.contains("hush"),
        "{errors}"
    );

    let mut environment = environment.to_vec();
    environment[1].1 = "postgres://owner:hush-hush-2-abc@db/baton";
    let tool = "[[tools.http]]\nname = 'a'\ndescription = 'b'\nurl = 'http://c/?a=hush-8&b'\n\
                headers = { authorization = 'hush-7' }";
    let config = load(tool, &environment).unwrap();
    let printed = config.print().unwrap();
    let debug = format!("{config:?}");
    assert!(!printed.contains("hush"), "{printed}");
    assert!(!debug.contains("hush"), "{debug}");
    assert!(printed.contains("postgres://***@db/baton"), "{printed}");
    assert!(printed.contains("http://c/?a=***&b"), "{printed}");
    assert!(printed.parse::<toml::Table>().is_ok(), "{printed}");
    assert_eq!(
        config.llm.api_key.as_ref().map(Secret::expose).unwrap(),
        "hush-5"
    );
}

#[test]
fn a_secret_is_read_from_the_file_that_its_variable_names() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    std::fs::write(&path, "sk-from-a-file\n").unwrap();
    let path = path.to_str().unwrap();

    let config = load("", &[("LLM_API_KEY_FILE", path)]).unwrap();
    assert_eq!(
        config.llm.api_key,
        Some(Secret::new("sk-from-a-file".to_owned()))
    );
    let config = load("", &[("BATON_NATS__TOKEN_FILE", path)]).unwrap();
    assert_eq!(
        config.nats.token,
        Some(Secret::new("sk-from-a-file".to_owned()))
    );

    assert_mistakes(
        load("", &[("LLM_API_KEY_FILE", path), ("LLM_API_KEY", "x")]),
        &[&["LLM_API_KEY_FILE", "LLM_API_KEY is set as well"]],
    );
    assert_mistakes(
        load("", &[("JWT_SECRET_FILE", "/nowhere/at/all")]),
        &[&["JWT_SECRET_FILE", "/nowhere/at/all", "cannot be read"]],
    );
}

#[test]
fn keys_and_issuers_that_prove_nothing_are_refused() {
    let file = r#"
        [auth]
        access_token_life = "1h"
        key_environment = "Live"
        leeway = "2m"
        keys = [
            { kid = "a", algorithm = "HS256", secret = "changeme-changeme-changeme-changeme" },
            { kid = "a", algorithm = "EdDSA" },
        ]
        issuers = [
            { issuer = "http://login.test", audience = "b", algorithm = "RS256", tenant = "t" },
            { issuer = "https://a.test", audience = "b", algorithm = "ES256", default_role = "owner" },
            { issuer = "http://127.0.0.1:7/x", audience = "b", algorithm = "EdDSA", tenant = "t" },
        ]
    "#;
    let result = load(
        file,
        &[("JWT_SECRET", "this-is-my-SECRET-0123456789-abcdef")],
    );
    let text = result.clone().unwrap_err().to_string();
    assert!(!text.contains("changeme-"), "{text}");
    assert_mistakes(
        result,
        &[
            &["variable JWT_SECRET", "stands in examples", "openssl rand"],
            &["auth.access_token_life", "15m"],
            &["auth.leeway"],
            &["auth.key_environment is `Live`", "lower-case"],
            &["key `a`", "stands in examples"],
            &["`a` does not tell"],
            &["key `a` needs one of secret and secret_file"],
            &["`http://login.test`", "https"],
            &["`https://a.test` needs one of tenant"],
            &["default_role of the issuer `https://a.test`"],
        ],
    );
    let secret = "[auth]\nkeys = [{ kid = 1, algorithm = 'HS256', secret = 'hush-hush' }]";
    let text = load(secret, &[]).unwrap_err().to_string();
    assert!(
        text.contains("auth.keys") && !text.contains("hush-hush"),
        "{text}"
    );
    for word in ["HS512", "none", "hs256"] {
        let file = format!("[auth]\nkeys = [{{ kid = 'k', algorithm = '{word}', secret = 'x' }}]");
        assert!(load(&file, &[]).is_err(), "{word}");
    }
    let shared = "[auth]\nissuers = [{ issuer = 'https://a.test', audience = 'b', \
                  algorithm = 'HS256', tenant = 't' }]";
    assert!(
        load(shared, &[]).is_err(),
        "a secret that an issuer shares with us is no proof"
    );
}
