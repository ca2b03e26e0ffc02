//! `baton agents`: agents are kept in files, and applied from the command line.

use baton_harness::scripted_model::Reply;
use baton_harness::stack::Stack;
use serde_json::{Value, json};

use crate::fixture::{model, options};

/// The command line, with a key and without a database.
struct Commands<'a> {
    stack: &'a Stack,
    client: [(&'static str, String); 2],
}

impl Commands<'_> {
    async fn output(&self, arguments: &[&str]) -> (bool, String) {
        let all: Vec<_> = ["agents"].iter().chain(arguments).copied().collect();
        let settings = self.client.iter();
        let settings: Vec<_> = settings.map(|(name, value)| (*name, &**value)).collect();
        self.stack.output_of(&all, &settings).await.unwrap()
    }

    async fn ok(&self, arguments: &[&str]) -> String {
        let (ok, text) = self.output(arguments).await;
        assert!(ok, "{arguments:?}: {text}");
        text
    }

    async fn refused(&self, arguments: &[&str], says: &str) -> String {
        let (ok, text) = self.output(arguments).await;
        assert!(!ok && text.contains(says), "{arguments:?}: {text}");
        text
    }
}

#[tokio::test]
async fn files_of_agents_are_applied_and_change_nothing_twice() {
    let model = model(|_| Reply::text("hi")).await;
    let stack = Stack::start(options(&model)).await.unwrap();
    let ingress = stack.ingress().await.unwrap();
    let client = stack.client(&ingress);
    let commands = Commands {
        stack: &stack,
        client: [
            ("BATON_BASE_URL", format!("http://{}", ingress.address())),
            ("BATON_API_KEY", stack.api_key().to_owned()),
        ],
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("agents.json");
    let write = |agents: &Value| std::fs::write(&file, agents.to_string()).unwrap();
    let path = file.to_str().unwrap();
    let mut support = json!({"name": "support", "model": "script", "temperature": 0.5});
    let sales = json!({"name": "sales", "instructions": "Sell.",
        "tools": [{"type": "server", "name": "calculator"}]});

    write(&json!([support, sales]));
    let planned = commands.ok(&["apply", "--dry-run", path]).await;
    assert_eq!(planned, "support@1  created\nsales@1  created\n");
    assert_eq!(commands.ok(&["list"]).await, "", "nothing was done");
    assert_eq!(commands.ok(&["apply", path]).await, planned);
    assert_eq!(
        commands.ok(&["list"]).await,
        "sales@1  -  calculator\nsupport@1  script\n"
    );
    assert_eq!(
        commands.ok(&["apply", path]).await,
        "support@1  unchanged\nsales@1  unchanged\n"
    );

    let shown: Value = serde_json::from_str(&commands.ok(&["show", "support"]).await).unwrap();
    assert_eq!(shown, support, "it is what a file holds");
    support["temperature"] = json!(0.7);
    write(&support);
    assert_eq!(
        commands.ok(&["apply", "--dry-run", path]).await,
        "support@2  changed\n"
    );
    assert_eq!(commands.ok(&["apply", path]).await, "support@2  changed\n");
    let first = commands.ok(&["show", "support@1"]).await;
    assert!(first.contains("0.5"), "{first}");

    // A bad definition keeps no other from being applied, and the exit code says that one was refused.
    let bad = json!({"name": "greedy", "tools": [{"type": "server", "name": "shell"}]});
    support["temperature"] = json!(0.9);
    write(&json!([bad, support]));
    let text = commands
        .refused(&["apply", path], "1 of 2 agents are refused")
        .await;
    assert!(text.contains("greedy  invalid_agent: "), "{text}");
    assert!(text.contains("support@3  changed"), "{text}");
    for (content, says) in [
        ("{", "is no JSON"),
        ("[{}]", "agent 1 has no `name`"),
        (r#"{"name": "../keys"}"#, "has no `name`"),
    ] {
        std::fs::write(&file, content).unwrap();
        commands.refused(&["apply", path], says).await;
    }
    commands
        .refused(&["apply", "/nowhere.json"], "cannot be read")
        .await;

    assert_eq!(
        commands.ok(&["delete", "support"]).await,
        "support  deleted\n"
    );
    commands
        .refused(&["delete", "support"], "agent_not_found")
        .await;
    commands.refused(&["show", "../keys"], "no agent").await;
    commands
        .refused(&["show", "support@new"], "names no version")
        .await;
    let left: Value = client.get("/v1/agents").await.unwrap().json().unwrap();
    assert_eq!(left["data"].as_array().unwrap().len(), 1);
    let (ok, text) = stack.output_of(&["agents", "list"], &[]).await.unwrap();
    assert!(!ok && text.contains("baton keys create"), "{text}");
}
