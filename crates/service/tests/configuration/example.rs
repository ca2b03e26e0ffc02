//! The example in `deployments` is correct, complete and valid.

use baton_service::{Config, Sources};

use super::{NOTHING, assert_mistakes, load};

const EXAMPLE: &str = include_str!("../../../../deployments/baton.example.toml");

#[test]
fn the_documented_example_parses_and_states_the_defaults() {
    assert_eq!(load(EXAMPLE, &[]).unwrap(), Config::default());
}

#[test]
fn the_documented_example_names_every_key() {
    let defaults = serde_json::to_value(Config::default()).unwrap();
    for (section, keys) in defaults.as_object().unwrap() {
        if ["mcp", "tools"].contains(&section.as_str()) {
            continue;
        }
        let (_, rest) = EXAMPLE
            .split_once(&format!("\n[{section}]\n"))
            .expect(section);
        let text = rest.split("\n[").next().unwrap();
        for key in keys.as_object().unwrap().keys() {
            let named = text.lines().any(|line| {
                line.trim_start_matches("# ")
                    .split_once(" = ")
                    .is_some_and(|(name, _)| name == key)
            });
            assert!(named, "[{section}] {key} is not in the example");
        }
    }
}

#[test]
fn what_the_example_has_in_comments_is_valid_too_but_for_the_secrets() {
    let uncommented: String = EXAMPLE
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest) if rest.contains(" = ") || rest.starts_with("[[") => rest,
            _ => line,
        })
        // Only one way to sign in is allowed, and one form of upstreams; the secret is a placeholder, and
        // there is no file of agents.
        .filter(|line| {
            ![
                "token",
                "creds_file",
                "jwt_secret",
                "upstreams",
                "routes",
                "path",
            ]
            .iter()
            .any(|k| line.starts_with(k))
        })
        .flat_map(|line| [line, "\n"])
        .collect();
    assert_mistakes(
        load(&uncommented, &[]),
        &[
            &["database.url", "placeholder"],
            &["database.migrate_url", "placeholder"],
            &["nats.password", "placeholder"],
            &["nats.callout_password", "placeholder"],
            &["nats.programs_password", "placeholder"],
            &["nats.system_password", "placeholder"],
            &["llm.api_key", "placeholder"],
            &["MCP server `docs`", "placeholder"],
            &["web_search.api_key", "placeholder"],
            &["`authorization` of tool `weather`", "placeholder"],
        ],
    );
    let sources = Sources::from_environment(NOTHING).with_file("baton.toml", &*uncommented);
    let config = Config::load(&sources.for_development()).unwrap();
    assert_eq!(config.nats.user.as_deref(), Some("baton"));
    assert_eq!(
        config.tools.http[0].parameters["required"],
        serde_json::json!(["city"])
    );
}

#[test]
fn the_upstreams_and_routes_in_comments_of_the_example_are_valid() {
    let lines: Vec<_> = EXAMPLE
        .lines()
        .filter_map(|line| line.strip_prefix("# "))
        .filter(|line| line.starts_with("upstreams = ") || line.starts_with("routes = "))
        .collect();
    assert_eq!(lines.len(), 2);
    let config = load(&format!("[llm]\n{}", lines.join("\n")), &[]).unwrap();
    let asked = config.llm.all_routes().targets("fast");
    let asked: Vec<_> = asked.iter().map(|it| (&*it.upstream, &*it.model)).collect();
    assert_eq!(asked, [("openai", "gpt-4o"), ("house", "llama")]);
}
