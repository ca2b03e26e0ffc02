//! Configurations with a mistake next to a secret, and secrets with a mistake.

use baton_harness::scripted_model::Reply;
use baton_harness::stack::Stack;

use super::search::{Said, Secret};
use crate::fixture::{model, options};

const CANARY: &str = "Kq7canary-9ZbTn4Rv8yLm1cE6uGdHs3Jx";

/// Guards I21 for the configuration: printed, refused, and used without success.
#[tokio::test]
async fn a_command_names_no_secret_whatever_is_wrong_with_it() {
    let model = model(|_| Reply::text("never asked")).await;
    let stack = Stack::start(options(&model)).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut said = Said::default();

    let everything = format!(
        "[database]\nurl = \"postgres://baton:{CANARY}@db/baton\"\n\
         migrate_url = \"postgres://db/baton?user=o&password={CANARY}\"\n\
         [nats]\nurl = \"nats://{CANARY}@n1,nats://u:{CANARY}@n2\"\n\
         [llm]\napi_key = \"{CANARY}\"\n\
         [auth]\njwt_secret = \"{CANARY}\"\n\
         keys = [{{ kid = \"a\", algorithm = \"HS256\", secret = \"{CANARY}\" }}]\n\
         [[tools.http]]\nname = \"t\"\ndescription = \"d\"\nurl = \"https://tool.example/t\"\n\
         headers = {{ authorization = \"Bearer {CANARY}\" }}\n\
         [[mcp.servers]]\nname = \"m\"\nurl = \"https://mcp.example/mcp?key={CANARY}\"\n\
         tools = [\"t\"]\ntoken = \"{CANARY}\"\nheaders = {{ x-key = \"{CANARY}\" }}\n"
    );
    let nats = format!("[nats]\nurl = \"nats://n\"\ntoken = \"{CANARY}\"\n");
    let file = folder.path().join("baton.toml");
    for (text, good) in [
        (everything.as_str(), true),
        (&nats, true),
        // Not TOML, at the place of the secret.
        (&format!("[llm]\napi_key = \"{CANARY}\n"), false),
        (&format!("[llm]\napi_key = {CANARY}\n"), false),
        (
            &format!("[llm]\napi_key = \"a\"\napi_key = \"{CANARY}\"\n"),
            false,
        ),
        // Another type, another place.
        (&format!("[llm]\napi_key = [\"{CANARY}\"]\n"), false),
        (
            &format!("[llm]\napi_key = {{ value = \"{CANARY}\" }}\n"),
            false,
        ),
        (&format!("[llm]\napi_kee = \"{CANARY}\"\n"), false),
        (&format!("[lml]\napi_key = \"{CANARY}\"\n"), false),
        (&format!("llm = \"{CANARY}\"\n"), false),
        (&format!("[nats]\npassword = \"{CANARY}\"\n"), false),
        (
            &format!("[nats]\nuser = \"u\"\npassword = [\"{CANARY}\"]\n"),
            false,
        ),
        (
            &format!("[nats]\ntoken = \"{CANARY}\"\nuser = \"u\"\npassword = \"{CANARY}\""),
            false,
        ),
        (&format!("[auth]\nkeys = \"{CANARY}\"\n"), false),
        (
            &format!("[auth]\nkeys = [{{ kid = \"a\", algorithm = \"{CANARY}\" }}]\n"),
            false,
        ),
        (
            &format!("[auth]\nkeys = [{{ kid = \"a\", secrit = \"{CANARY}\" }}]\n"),
            false,
        ),
        (
            &format!("[auth]\nissuers = [{{ issuer = \"x\", client_secret = \"{CANARY}\" }}]\n"),
            false,
        ),
        // Not a URL, or not of the right kind.
        (&format!("[database]\nurl = \"{CANARY}\"\n"), false),
        (
            &format!("[database]\nurl = \"mysql://u:{CANARY}@db/x\"\n"),
            false,
        ),
        (&format!("[nats]\nurl = \"u:{CANARY}@n\"\n"), false),
        (
            &format!("[llm]\nbase_url = \"https://u:{CANARY}@llm.example/v1\"\n"),
            false,
        ),
        (
            &format!("[llm]\nbase_url = \"ftp://u:{CANARY}@llm.example/v1\"\n"),
            false,
        ),
        // Tools.
        (&format!("[[tools.http]]\nheaders = \"{CANARY}\"\n"), false),
        (&format!("[[mcp.servers]]\ntoken = [\"{CANARY}\"]\n"), false),
        (&format!("[[mcp.servers]]\ntokn = \"{CANARY}\"\n"), false),
        (
            &format!("[[mcp.servers]]\nname = \"m\"\nurl = \"ftp://u:{CANARY}@m/\"\ntools = []\n"),
            false,
        ),
        (
            &format!("[[tools.http]]\nheaders = {{ a = [\"{CANARY}\"] }}\n"),
            false,
        ),
        (
            &format!("[[tools.http]]\nheader = {{ a = \"{CANARY}\" }}\n"),
            false,
        ),
        (
            &format!(
                "[[tools.http]]\nname = \"t\"\ndescription = \"d\"\n\
                 url = \"https://u:{CANARY}@tool.example/t\"\n"
            ),
            false,
        ),
    ] {
        std::fs::write(&file, text).unwrap();
        for command in ["check", "print"] {
            // Settings of the stack must not override those of the file.
            let empty = [
                "DATABASE_URL",
                "DATABASE_MIGRATE_URL",
                "NATS_URL",
                "BATON_NATS__USER",
                "BATON_NATS__PASSWORD",
                "LLM_BASE_URL",
            ];
            let mut settings = vec![("BATON_CONFIG", file.to_str().unwrap())];
            settings.extend(empty.map(|name| (name, "")));
            let (succeeded, output) = stack
                .output_of(&["config", command], &settings)
                .await
                .unwrap();
            assert_eq!(succeeded, good, "{text}\n{output}");
            said.add("commands", output);
        }
    }

    let wrong = format!("postgres://baton:{CANARY}@127.0.0.1:1/baton?password={CANARY}");
    let wrong = [("DATABASE_URL", &*wrong), ("DATABASE_MIGRATE_URL", &*wrong)];
    let elsewhere = format!("nats://u:{CANARY}@127.0.0.1:1");
    let elsewhere = [("NATS_URL", &*elsewhere)];
    for (settings, commands) in [
        (
            &wrong[..],
            &[
                &["ingress"][..],
                &["worker"],
                &["scheduler"],
                &["keys", "list"],
                &["migrate"],
                &["audit", "prune", "--before", "2020-01-01"],
            ][..],
        ),
        (
            &elsewhere,
            &[
                &["ingress"],
                &["worker"],
                &["scheduler"],
                &["dead", "list"],
                &["migrate"],
            ],
        ),
    ] {
        for command in commands {
            let trace = [settings, &[("RUST_LOG", "trace")]].concat();
            let (succeeded, output) = stack.output_of(command, &trace).await.unwrap();
            assert!(!succeeded, "{command:?}: {output}");
            said.add("commands", output);
        }
    }
    for sign in [
        "***",
        "not valid TOML",
        "did you mean `api_key`",
        "cannot connect to NATS",
    ] {
        said.assert_heard("commands", sign);
    }
    said.assert_silent(&[Secret::new("the canary", CANARY)], &[]);
}
