//! Several upstreams, and the routes to them.

use baton_service::Config;

use super::{assert_mistakes, load};

const TWO: &str = r#"
[[llm.upstreams]]
name = "one"
base_url = "https://one.example/v1"
[[llm.upstreams]]
name = "two"
base_url = "https://two.example/v1"
unsupported = ["tools"]
"#;

fn asked(config: &Config, model: &str) -> Vec<(String, String)> {
    let targets = config.llm.all_routes().targets(model).into_iter();
    targets
        .map(|target| (target.upstream.to_string(), target.model))
        .collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    let expected = expected.iter();
    expected
        .map(|(upstream, model)| ((*upstream).to_owned(), (*model).to_owned()))
        .collect()
}

#[test]
fn one_upstream_serves_every_model_in_either_form() {
    let one = load("[llm]\nbase_url = \"https://one.example/v1\"", &[]).unwrap();
    assert_eq!(asked(&one, "any"), pairs(&[("default", "any")]));
    let (named, _) = TWO.split_at(TWO.rfind("[[").unwrap());
    let named = load(named, &[]).unwrap();
    assert_eq!(asked(&named, "any"), pairs(&[("one", "any")]));
}

#[test]
fn a_model_goes_by_its_route() {
    let text = format!(
        "{TWO}
[[llm.routes]]
model = \"gpt-4o\"
aliases = [\"fast\"]
to = [{{ upstream = \"one\" }}, {{ upstream = \"two\", model = \"llama\" }}]
[[llm.routes]]
model = \"house/*\"
to = [{{ upstream = \"two\", model = \"*\" }}]
"
    );
    let config = load(&text, &[]).unwrap();
    let both = pairs(&[("one", "gpt-4o"), ("two", "llama")]);
    assert_eq!(asked(&config, "gpt-4o"), both);
    assert_eq!(asked(&config, "fast"), both);
    assert_eq!(asked(&config, "house/qwen"), pairs(&[("two", "qwen")]));
    assert_eq!(asked(&config, "other"), []);
    let printed = config.print().unwrap();
    assert!(printed.contains("house/*"), "{printed}");
}

#[test]
fn every_mistake_is_named_by_its_upstream_or_route() {
    let text = r#"
[llm]
base_url = "https://old.example/v1"
unsupported = ["tools"]
[[llm.upstreams]]
name = "one"
base_url = "ftp://one.example"
max_concurrent = 0
proxy = "nowhere"
[[llm.upstreams]]
name = "one"
base_url = "https://me:secret-word@two.example/v1"
first_byte_timeout = "1h"
unsupported = ["max_tokens"]
headers = { "a b" = "c" }
[[llm.routes]]
model = "a*b*"
to = []
[[llm.routes]]
model = "m"
aliases = ["m", "x*"]
to = [{ upstream = "onee" }, { upstream = "one", model = "*" }]
[[llm.routes]]
model = "p-*"
aliases = ["q"]
to = [{ upstream = "one" }]
"#;
    let error = load(text, &[]).unwrap_err();
    assert!(!error.to_string().contains("secret-word"), "{error}");
    assert_mistakes(
        Err(error),
        &[
            &["llm.base_url and [[llm.upstreams]] are both set"],
            &["llm.unsupported and [[llm.upstreams]] are both set"],
            &["upstream `one`, `base_url`", "not an HTTP URL"],
            &["upstream `one`, `max_concurrent`"],
            &["upstream `one`, `proxy`"],
            &["upstream 2, `name`", "two are named `one`"],
            &["upstream `one`, `base_url`", "a user name or a password"],
            &["upstream `one`, `headers`", "`a b`"],
            &["upstream `one`, `first_byte_timeout`", "total_timeout"],
            &["upstream `one`, `answer_limit_field`"],
            &["route 1, `model`"],
            &["route 1, `to`", "empty"],
            &["route 2, `aliases`", "`m` has a route already"],
            &["route 2, `aliases`", "`x*` is no name"],
            &["route 2, `to`", "`onee`", "did you mean `one`?"],
            &["route 2, `to`", "`*`"],
            &["route 3, `aliases`", "which model is meant"],
        ],
    );
    assert_mistakes(load(TWO, &[]), &[&["several upstreams and no route"]]);
    let nowhere = "[[llm.routes]]\nmodel = \"m\"\nto = [{ upstream = \"one\" }]\n";
    assert_mistakes(
        load(nowhere, &[]),
        &[
            &["[[llm.upstreams]] has none"],
            &["route 1, `to`", "there is no upstream `one`"],
        ],
    );
}

#[test]
fn a_key_comes_from_a_file_and_a_wrong_type_is_named_without_its_value() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    std::fs::write(&path, "sk-from-a-file\n").unwrap();
    let upstream = |rest: &str| {
        format!(
            "[[llm.upstreams]]\nname = \"one\"\nbase_url = \"https://one.example/v1\"\n{rest}\n"
        )
    };
    let file = format!("api_key_file = {path:?}");
    let config = load(&upstream(&file), &[]).unwrap();
    let key = config.llm.upstreams[0].api_key.as_ref().unwrap();
    assert_eq!(key.expose(), "sk-from-a-file");
    assert!(!format!("{config:?}").contains("sk-from"));
    assert!(!config.print().unwrap().contains("sk-from"));
    let both = format!("{file}\napi_key = \"sk-other-one\"");
    assert_mistakes(
        load(&upstream(&both), &[]),
        &[&["`api_key` is set as well"]],
    );
    assert_mistakes(
        load(&upstream("api_key_file = \"/no/such/file\""), &[]),
        &[&["llm.upstreams", "/no/such/file cannot be read"]],
    );
    let error = load(&upstream("api_key = 271828"), &[]).unwrap_err();
    assert!(!error.to_string().contains("271828"), "{error}");
    assert_mistakes(Err(error), &[&["upstream 1, `api_key`", "not a string"]]);
}
