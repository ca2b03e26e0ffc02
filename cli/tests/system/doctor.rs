//! `baton doctor` with servers that are in order, and with one fault after the other.

use std::path::Path;

use baton_harness::mcp_server::{Era, Manner, McpServer};
use baton_harness::scripted_model::{Reply, Script, ScriptedModel};
use serde_json::Value;

use crate::first_install::{Environment, baton, for_migrate, servers, succeeds};

type Variables<'a> = &'a [(&'a str, &'a str)];

/// A deployment with running servers, and the environment of an operator.
struct Deployment {
    folder: tempfile::TempDir,
    environment: Environment,
}

impl Deployment {
    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Runs the command with further variables. Returns whether it succeeded, and its output.
    async fn doctor(&self, arguments: &[&str], more: Variables<'_>) -> (bool, String) {
        let mut environment = self.environment.clone();
        for (name, value) in more {
            environment.insert((*name).to_owned(), (*value).to_owned());
        }
        let mut all = vec!["doctor"];
        all.extend(arguments);
        let output = baton(self.path(), &all, &environment).await;
        let said = String::from_utf8(output.stdout).unwrap();
        (output.status.success(), said)
    }

    /// Returns the names of the checks that fail, with a fault that further variables make.
    async fn failing(&self, more: Variables<'_>) -> Vec<String> {
        let (success, said) = self.doctor(&["--json"], more).await;
        let report: Value = serde_json::from_str(&said).unwrap();
        let checks = report["checks"].as_array().unwrap().clone();
        let failed: Vec<_> = checks
            .iter()
            .filter(|check| check["verdict"] == "failed")
            .inspect(|check| assert!(check["remedy"].is_string(), "{check}"))
            .map(|check| check["name"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(success, failed.is_empty(), "{said}");
        failed
    }
}

#[tokio::test]
async fn a_deployment_in_order_passes_and_each_fault_is_named() {
    let script = Script::always(Reply::text("ready"));
    let model = ScriptedModel::start(script).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    succeeds(folder.path(), &["init"], &Environment::new()).await;
    let (nats, postgres) = servers(folder.path()).await;
    let mut environment = for_migrate(folder.path(), &nats, &postgres);
    environment.insert("LLM_BASE_URL".to_owned(), model.base_url());
    environment.insert("LLM_DEFAULT_MODEL".to_owned(), "echo".to_owned());
    let deployment = Deployment {
        folder,
        environment,
    };

    let fresh = deployment.failing(&[]).await;
    assert_eq!(fresh, ["postgres.connection", "nats.streams"]);
    let admin = [("DATABASE_ADMIN_URL", postgres.superuser_url())];
    let mut migrating = deployment.environment.clone();
    migrating.extend(admin.map(|(name, value)| (name.to_owned(), value.to_owned())));
    succeeds(deployment.path(), &["migrate"], &migrating).await;

    let (success, said) = deployment.doctor(&[], &[]).await;
    assert!(success, "{said}");
    assert!(said.contains(" 0 failed, 0 warnings"), "{said}");
    assert!(
        said.contains("streamed an answer of echo with a tool"),
        "{said}"
    );
    let requests = model.requests();
    assert!(
        requests.last().unwrap().body["tools"].is_array(),
        "{requests:?}"
    );

    let password = postgres.superuser_password();
    let superuser = postgres.url_for("baton", "postgres", password);
    let faults: [(Variables<'_>, &[&str]); 6] = [
        (
            &[("BATON_NATS__PASSWORD_FILE", "secrets/nats_worker_password")],
            &["nats.connection"],
        ),
        (&[("BATON_NATS__EVENT_RETENTION", "1h")], &["nats.streams"]),
        (
            &[("LLM_BASE_URL", "http://127.0.0.1:1/v1")],
            &["models.list", "models.turn"],
        ),
        (&[("LLM_BASE_URL", "")], &["models.list"]),
        (&[("DATABASE_URL", &superuser)], &["postgres.isolation"]),
        (&[("BATON_WORKER__LEASE", "soon")], &["configuration"]),
    ];
    for (fault, expected) in faults {
        assert_eq!(deployment.failing(fault).await, expected, "{fault:?}");
    }

    let server = McpServer::start(Era::Legacy, Manner::Honest).await.unwrap();
    let configured = |tools: &str| {
        format!(
            r#"[{{"name":"tests","url":"{}","tools":[{tools}]}}]"#,
            server.url()
        )
    };
    for (tools, word) in [(r#""echo""#, "ok"), (r#""echo","sing""#, "warning")] {
        let configured = configured(tools);
        let (success, said) = deployment
            .doctor(&[], &[("BATON_MCP__SERVERS", &configured)])
            .await;
        assert!(
            success && said.contains(&format!("{word:<8} mcp.tools")),
            "{said}"
        );
    }
    let away = r#"[{"name":"away","url":"http://127.0.0.1:1/mcp","tools":["echo"]}]"#;
    assert_eq!(
        deployment.failing(&[("BATON_MCP__SERVERS", away)]).await,
        ["mcp.tools"]
    );

    let asked = model.requests().len();
    let (success, said) = deployment.doctor(&["--no-turn"], &[]).await;
    assert!(success && said.contains("--no-turn"), "{said}");
    assert_eq!(model.requests().len(), asked, "no turn was asked for");
    model.stop().await;
}
