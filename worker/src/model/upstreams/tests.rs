//! Turns that one upstream does not answer, over real sockets.

use baton_harness::client::PATIENCE;
use baton_harness::scripted_model::{Reply, Script, ScriptedModel};
use baton_service::Config;
use serde_json::{Value, json};

use super::*;

/// Two upstreams of one route, `one` before `two`.
struct Pair {
    one: ScriptedModel,
    two: ScriptedModel,
    config: LlmConfig,
    models: Upstreams,
}

impl Pair {
    async fn start(one: Script, two: Script, of_one: Value) -> Self {
        let one = ScriptedModel::start(one).await.unwrap();
        let two = ScriptedModel::start(two).await.unwrap();
        let mut first = json!({"name": "one", "base_url": one.base_url()});
        for (key, value) in of_one.as_object().unwrap() {
            first[key] = value.clone();
        }
        let config = json!({"llm": {
            "max_retries": 0,
            "upstreams": [first, {"name": "two", "base_url": two.base_url()}],
            "routes": [{"model": "m", "to": [
                {"upstream": "one"}, {"upstream": "two", "model": "other"},
            ]}],
        }});
        let config = serde_json::from_value::<Config>(config).unwrap().llm;
        let models = Upstreams::new(&config, None).unwrap();
        Self {
            one,
            two,
            config,
            models,
        }
    }

    async fn ask(&self, context: TurnContext) -> Result<StartedTurn, ModelError> {
        let targets = self.models.targets("m", &[], Needs::default())?;
        let body = |target: &Target| json!({"model": target.model, "stream": true}).to_string();
        let body = |target: &Target| Bytes::from(body(target));
        self.models.start_turn(&targets, body, context).await
    }

    /// The upstream that answers a turn, and the reasons for which others do not.
    async fn answered(&self) -> Result<(String, Vec<&'static str>), ModelError> {
        let mut started = self.ask(TurnContext::default()).await?;
        while started.stream.next_batch().await?.is_some() {}
        let reasons = started.fallbacks.iter().map(|it| it.reason).collect();
        Ok((started.target.upstream.to_string(), reasons))
    }

    fn requests(&self) -> (usize, usize) {
        (self.one.counts().requests, self.two.counts().requests)
    }
}

fn fine() -> Script {
    Script::always(Reply::tokens(3))
}

fn nothing() -> Value {
    json!({})
}

#[tokio::test]
async fn fallbacks_are_asked_after_the_model_and_none_of_them_twice() {
    let two = Pair::start(fine(), fine(), nothing()).await;
    let asked = |model: &str, fallbacks: &[&str]| {
        let fallbacks: Vec<_> = fallbacks.iter().map(|&name| name.to_owned()).collect();
        let targets = two.models.targets(model, &fallbacks, Needs::default());
        targets.map(|targets| {
            let named = |it: Target| (it.upstream.to_string(), it.model, it.asked);
            targets.into_iter().map(named).collect::<Vec<_>>()
        })
    };
    let named = |upstream: &str, model: &str, asked: &str| {
        (upstream.to_owned(), model.to_owned(), asked.to_owned())
    };
    let own = [named("one", "m", "m"), named("two", "other", "m")];
    assert_eq!(asked("m", &["m", "unknown"]).unwrap(), own);
    let rescued = asked("unknown", &["m"]).unwrap();
    assert_eq!(rescued[0], named("one", "m", "m"));
    let error = asked("unknown", &["no", "neither"]).unwrap_err();
    assert!(matches!(error, ModelError::NoRoute { model } if model == "unknown"));
}

#[tokio::test]
async fn another_upstream_is_asked_before_the_first_token_and_by_its_own_name() {
    let spent = json!({"error": {"message": "pay", "type": "insufficient_quota",
        "param": null, "code": "insufficient_quota"}});
    let spent = Reply::status(429).body(spent.to_string());
    for (reply, reason) in [
        (Reply::status(429), "upstream_rate_limited"),
        (spent, "upstream_rate_limited"),
        (Reply::status(500), "upstream_error"),
        (Reply::status(503), "upstream_error"),
        (Reply::tokens(0).cut(), "upstream_cut"),
        (Reply::hang_before_headers(), "upstream_timeout"),
    ] {
        let patience = json!({"first_byte_timeout": "100ms"});
        let two = Pair::start(Script::always(reply.clone()), fine(), patience).await;
        let (upstream, reasons) = two.answered().await.unwrap();
        assert_eq!((&*upstream, &*reasons), ("two", &[reason][..]), "{reply:?}");
        assert_eq!(two.requests(), (1, 1), "{reply:?}");
        assert_eq!(two.two.requests()[0].body["model"], "other");
    }
    let two = Pair::start(fine(), fine(), json!({"base_url": "http://127.0.0.1:1/v1"})).await;
    let (upstream, reasons) = two.answered().await.unwrap();
    assert_eq!(
        (&*upstream, &*reasons),
        ("two", &["upstream_unreachable"][..])
    );
}

#[tokio::test]
async fn what_another_upstream_cannot_mend_is_not_asked_of_it() {
    for reply in [
        Reply::status(400),
        Reply::status(401),
        Reply::status(404),
        Reply::tokens(2).cut(),
        Reply::bad_json_after(0),
    ] {
        let two = Pair::start(Script::always(reply.clone()), fine(), nothing()).await;
        assert!(two.answered().await.is_err(), "{reply:?}");
        assert_eq!(two.requests(), (1, 0), "{reply:?}");
    }
}

#[tokio::test]
async fn a_turn_that_may_have_cost_something_is_asked_for_once() {
    let patience = json!({"first_byte_timeout": "100ms"});
    let silent = Script::always(Reply::hang_before_headers());
    let two = Pair::start(silent, fine(), patience).await;
    let context = || TurnContext {
        only_free_retries: true,
        ..TurnContext::default()
    };
    let error = two.ask(context()).await.unwrap_err();
    assert_eq!(error.code(), "upstream_timeout");
    assert_eq!(two.requests(), (1, 0));
    two.one.set_script(Script::always(Reply::status(503)));
    let started = two.ask(context()).await.unwrap();
    assert_eq!(&*started.target.upstream, "two", "a refusal costs nothing");
}

#[tokio::test]
async fn when_all_upstreams_fail_the_first_is_asked_again() {
    let busy = || Reply::status(503).header("retry-after", "0");
    let one = Script::sequence([busy(), Reply::tokens(1)]);
    let mut two = Pair::start(one, Script::always(busy()), nothing()).await;
    two.config.max_retries = 1;
    two.models = Upstreams::new(&two.config, None).unwrap();
    let (upstream, reasons) = two.answered().await.unwrap();
    assert_eq!((&*upstream, &*reasons), ("one", &["upstream_error"][..]));
    assert_eq!(two.requests(), (2, 1));
}

#[tokio::test]
async fn an_upstream_that_fails_again_and_again_is_passed_over_until_it_answers() {
    let two = Pair::start(Script::always(Reply::status(500)), fine(), nothing()).await;
    for _ in 0..3 {
        two.answered().await.unwrap();
    }
    assert_eq!(two.requests(), (3, 3));
    let (upstream, reasons) = two.answered().await.unwrap();
    assert_eq!((&*upstream, &*reasons), ("two", &[DOWN][..]));
    assert_eq!(two.requests(), (3, 4), "it is left alone");
    let unhealthy: Vec<_> = two.models.health().map(|(_, up)| up).collect();
    assert_eq!(unhealthy, [false, true]);

    // An unchanged upstream stays as it is when the configuration is taken anew.
    let reloaded = Upstreams::new(&two.config, Some(&two.models)).unwrap();
    assert!(!reloaded.health().next().unwrap().1);
    let mut changed = two.config.clone();
    changed.upstreams[0].max_concurrent = Some(5);
    let changed = Upstreams::new(&changed, Some(&two.models)).unwrap();
    assert!(changed.health().next().unwrap().1, "it is another one now");

    two.one.set_script(fine());
    let back = async { while two.answered().await.unwrap().0 != "one" {} };
    timeout(PATIENCE, back).await.unwrap();
    assert!(two.models.health().all(|(_, up)| up));
    // All others failing, one that is down is asked all the same.
    two.one.set_script(Script::always(Reply::status(500)));
    for _ in 0..3 {
        two.answered().await.unwrap();
    }
    two.two.set_script(Script::always(Reply::status(500)));
    two.one.set_script(fine());
    assert_eq!(two.answered().await.unwrap().0, "one");
}

#[tokio::test]
async fn an_upstream_without_room_is_passed_over_and_the_only_one_is_waited_for() {
    let held = Script::sequence([Reply::tokens(1).hang(), Reply::tokens(1)]);
    let two = Pair::start(held, fine(), json!({"max_concurrent": 1})).await;
    let first = two.ask(TurnContext::default()).await.unwrap();
    assert_eq!(&*first.target.upstream, "one");
    let (upstream, reasons) = two.answered().await.unwrap();
    assert_eq!((&*upstream, &*reasons), ("two", &[BUSY][..]));

    let mut only = two.models.targets("m", &[], Needs::default()).unwrap();
    only.truncate(1);
    let body = |_: &Target| Bytes::from_static(b"{\"model\":\"m\",\"stream\":true}");
    let context = TurnContext::default();
    let mut waiting = Box::pin(two.models.start_turn(&only, body, context));
    assert!(futures_util::poll!(&mut waiting).is_pending());
    assert_eq!(two.one.counts().requests, 1, "it waits for its place");
    drop(first);
    let second = timeout(PATIENCE, waiting).await.unwrap().unwrap();
    assert_eq!(&*second.target.upstream, "one");
}

#[tokio::test]
async fn keys_and_headers_of_each_upstream_go_to_it_alone_and_are_never_quoted() {
    let echo = Script::new(|request| {
        let seen = format!("{:?}", request.headers);
        let error = json!({"error": {"message": seen, "type": "t", "param": null, "code": "c"}});
        Reply::status(400).body(error.to_string())
    });
    let secrets = json!({
        "api_key": "sk-of-upstream-one", "headers": {"x-team": "team-secret-word"},
    });
    let two = Pair::start(echo, fine(), secrets).await;
    let error = two.answered().await.unwrap_err();
    let headers = &two.one.requests()[0].headers;
    assert_eq!(headers["authorization"], "Bearer sk-of-upstream-one");
    assert_eq!(headers["x-team"], "team-secret-word");
    for text in [
        error.to_string(),
        format!("{error:?}"),
        format!("{:?}", two.models),
        format!("{:?}", two.config),
    ] {
        for secret in ["sk-of-upstream-one", "team-secret-word"] {
            assert!(!text.contains(secret), "{text}");
        }
    }
    two.one.set_script(Script::always(Reply::status(500)));
    assert_eq!(two.answered().await.unwrap().0, "two");
    let headers = &two.two.requests()[0].headers;
    assert!(!headers.contains_key("authorization") && !headers.contains_key("x-team"));
}

#[tokio::test]
async fn a_model_without_a_route_fails_by_name() {
    let two = Pair::start(fine(), fine(), json!({"unsupported": ["tools"]})).await;
    let error = two.models.targets("n", &[], Needs::default()).unwrap_err();
    assert_eq!(error.code(), "model_not_found");
    let needs = Needs {
        tools: true,
        ..Needs::default()
    };
    let able = two.models.targets("m", &[], needs).unwrap();
    assert_eq!(able.len(), 1, "an upstream without tools is not asked");
    assert_eq!(&*able[0].upstream, "two");
}
