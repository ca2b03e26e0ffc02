//! `[[mcp.servers]]`.

use baton_service::config::{McpClientAuth, McpTrust};

use super::{assert_mistakes, load};

#[test]
fn a_server_has_defaults_for_all_but_name_url_and_tools() {
    let file =
        "[[mcp.servers]]\nname = 'docs'\nurl = 'https://mcp.example/mcp'\ntools = ['a', 'b.c']";
    let config = load(file, &[]).unwrap();
    let server = &config.mcp.servers[0];
    assert_eq!(server.trust, McpTrust::None);
    assert_eq!(server.timeout.as_secs(), 30);
    assert_eq!(server.connect_timeout.as_secs(), 10);
    assert_eq!(server.list_for.as_secs(), 300);
    let offered: Vec<_> = config.mcp.offered_names().collect();
    assert_eq!(offered[0], "docs__a");
    assert!(offered[1].starts_with("docs__b_c_"), "{offered:?}");
    assert_eq!(
        load(&config.print().unwrap(), &[]).unwrap(),
        config,
        "printed and read again"
    );
}

#[test]
fn every_mistake_of_every_server_is_reported() {
    let file = "
        [[mcp.servers]]
        name = 'docs'
        urls = 'https://mcp.example/mcp'
        timeout = 5
        token = 123456
        [[mcp.servers]]
        url = 'https://mcp.example/mcp'
        headers = { x = 123456 }
        trust = 'much'
    ";
    let result = load(file, &[]);
    let text = result.clone().unwrap_err().to_string();
    assert!(!text.contains("123456"), "{text}");
    assert_mistakes(
        result,
        &[
            &["MCP server 1 has no `tools`"],
            &[
                "MCP server 1, `timeout`",
                "write for example timeout = \"30s\"",
            ],
            &["MCP server 1, `token`", "not a string"],
            &["MCP server 1", "`urls`", "did you mean `url`?"],
            &["MCP server 2 has no `name`"],
            &["MCP server 2 has no `tools`"],
            &["MCP server 2, `headers`", "table of strings"],
            &["MCP server 2, `trust`", "`none` or `hints`"],
        ],
    );
}

#[test]
fn what_a_server_cannot_be_is_refused() {
    let file = r#"
        [[tools.http]]
        name = "docs__search"
        description = "x"
        url = "https://tools.example"
        [[mcp.servers]]
        name = "docs"
        url = "https://mcp.example/mcp"
        tools = ["search", "a\u001bb", "twice", "twice"]
        [[mcp.servers]]
        name = "docs"
        url = "ftp://mcp.example/mcp"
        tools = []
        [[mcp.servers]]
        name = "Bad_name"
        url = "https://user:secret-1@mcp.example/mcp"
        tools = ["a"]
        token = "secret-2-abcdefgh"
        timeout = "0s"
        headers = { authorization = "Bearer secret-3", mcp-session-id = "1" }
    "#;
    let result = load(file, &[]);
    let text = result.clone().unwrap_err().to_string();
    assert!(!text.contains("secret-"), "{text}");
    assert_mistakes(
        result,
        &[
            &["\"a\\u{1b}b\"", "no pattern"],
            &["`docs` lists the tool \"twice\" twice"],
            &["two MCP servers are named `docs`"],
            &["the url of MCP server `docs` is not an HTTP URL"],
            &["`docs` offers no tool", "baton mcp probe"],
            &["`Bad_name`", "1 to 20 lower-case letters"],
            &["the url of MCP server `Bad_name` holds a user name"],
            &["has a token and a header `authorization`"],
            &["the header `mcp-session-id`", "cannot be sent"],
            &["the timeout of MCP server `Bad_name`"],
            &["\"search\" of MCP server `docs` and the tool `docs__search`"],
        ],
    );
}

#[test]
fn a_token_is_read_from_its_file_and_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    std::fs::write(&path, "hush-token-of-a-file\n").unwrap();
    let server = |rest: &str| {
        format!(
            "[[mcp.servers]]\nname = 'docs'\nurl = 'https://mcp.example/mcp?key=hush-query'\n\
             tools = ['a']\nheaders = {{ x-team = 'hush-header' }}\n{rest}\n"
        )
    };
    let file = format!("token_file = '{}'", path.display());
    let config = load(&server(&file), &[]).unwrap();
    let token = config.mcp.servers[0].token.as_ref().unwrap();
    assert_eq!(token.expose(), "hush-token-of-a-file");
    let printed = config.print().unwrap();
    assert!(!printed.contains("hush"), "{printed}");
    let debug = format!("{config:?}");
    assert!(!debug.contains("hush"), "{debug}");

    assert_mistakes(
        load(&server(&format!("{file}\ntoken = 'hush-hush-hush'")), &[]),
        &[&["`docs`, `token_file`", "`token` is set as well"]],
    );
    assert_mistakes(
        load(&server("token_file = '/nowhere/at/all'"), &[]),
        &[&["/nowhere/at/all", "cannot be read"]],
    );
    assert_mistakes(
        load(&server("token = '<token>'"), &[]),
        &[&[
            "the token, a header or a variable of MCP server `docs`",
            "placeholder",
        ]],
    );
}

#[test]
fn a_client_of_a_token_server_has_a_secret_that_is_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    std::fs::write(&path, "hush-secret-of-a-file\n").unwrap();
    let server = |rest: &str, auth: &str| {
        format!(
            "[[mcp.servers]]\nname = 'docs'\nurl = 'https://mcp.example/mcp'\ntools = ['a']\n{rest}\n\
             [mcp.servers.auth]\nkind = 'client_credentials'\ntoken_url = 'https://login.example/token'\n\
             client_id = 'baton'\n{auth}\n"
        )
    };
    let file = format!("client_secret_file = '{}'", path.display());
    let config = load(&server("", &file), &[]).unwrap();
    let auth = config.mcp.servers[0].auth.as_ref().unwrap();
    let secret = auth.client_secret.as_ref().unwrap();
    assert_eq!(secret.expose(), "hush-secret-of-a-file");
    assert_eq!(auth.client_auth, McpClientAuth::Basic);
    for shown in [config.print().unwrap(), format!("{config:?}")] {
        assert!(!shown.contains("hush"), "{shown}");
    }

    let given = "client_secret = 'hush-hush-hush'";
    for (rest, auth, says) in [
        ("", String::new(), "no client_secret"),
        ("", "client_secret = ''".to_owned(), "no client_secret"),
        (
            "",
            format!("{file}\n{given}"),
            "`client_secret` is set as well",
        ),
        (
            "",
            "client_secret_file = '/nowhere'".to_owned(),
            "/nowhere cannot be read",
        ),
        ("", "client_secret = '<secret>'".to_owned(), "placeholder"),
        (
            "",
            "client_secret = 123456".to_owned(),
            "client_secret or client_secret_file",
        ),
        (
            "",
            format!("{given}\nsecret = 'hush'"),
            "client_secret or client_secret_file",
        ),
        (
            "token = 'hush-token-hush'",
            given.to_owned(),
            "`auth` and another token",
        ),
        (
            "headers = { Authorization = 'hush' }",
            given.to_owned(),
            "`auth` and another token",
        ),
    ] {
        let errors = load(&server(rest, &auth), &[]).unwrap_err().to_string();
        assert!(errors.contains(says), "{errors}");
        assert!(
            !errors.contains("hush-") && !errors.contains("123456"),
            "{errors}"
        );
    }
    let url = server("", given).replace("https://login", "ftp://login");
    assert_mistakes(load(&url, &[]), &[&["the token_url of MCP server `docs`"]]);
}

#[test]
fn a_local_program_has_a_command_and_an_environment_that_is_never_shown() {
    let file = "[[mcp.servers]]\nname = 'docs'\ncommand = ['/usr/bin/docs', '--quiet']\n\
                tools = ['a']\nenv = { DOCS_KEY = 'hush-variable' }";
    let config = load(file, &[]).unwrap();
    let server = &config.mcp.servers[0];
    assert_eq!(server.command, ["/usr/bin/docs", "--quiet"]);
    assert_eq!(server.program_memory().to_string(), "1GiB");
    for shown in [config.print().unwrap(), format!("{config:?}")] {
        assert!(!shown.contains("hush"), "{shown}");
    }
    let file = r#"
        [[mcp.servers]]
        name = "neither"
        tools = ["a"]
        [[mcp.servers]]
        name = "both"
        url = "https://mcp.example/mcp"
        command = ["/usr/bin/docs"]
        token = "secret-2-abcdefgh"
        tools = ["a"]
        [[mcp.servers]]
        name = "relative"
        command = ["npx", "-y"]
        memory = "1MiB"
        env = { "A=B" = "x" }
        tools = ["a"]
        [[mcp.servers]]
        name = "web"
        url = "https://mcp.example/mcp"
        memory = "64MiB"
        tools = ["a"]
    "#;
    assert_mistakes(
        load(file, &[]),
        &[
            &["`neither` needs either a `url` or a `command`"],
            &["`both` needs either a `url` or a `command`"],
            &["`both` is a local program, and has a token", "`env`"],
            &["`relative` does not begin with an absolute path", "no PATH"],
            &["`relative` cannot have a variable named \"A=B\""],
            &["the memory of MCP server `relative` is less than 16MiB"],
            &["`web` has `env` or `memory`", "`command`"],
        ],
    );
}
