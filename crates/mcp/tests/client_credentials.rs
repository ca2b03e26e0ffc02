//! Requests that carry the tokens of a token server.
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::time::Duration;

use baton_harness::mcp_server::{Era, Manner, McpServer};
use baton_harness::token_server::{TokenRequest, TokenServer};
use baton_mcp::{ClientAuth, ClientCredentials, Endpoint, McpError, Server, ToolCall};
use baton_outbound::{Guard, Policy};
use http::StatusCode;
use serde_json::json;
use url::Url;

const LONG: Duration = Duration::from_mins(1);
const SECRET: &str = "s3cret of/the client";

fn client(server: &McpServer, tokens: &TokenServer, auth: ClientAuth) -> Server {
    let credentials = ClientCredentials {
        token_url: Url::parse(&tokens.url()).unwrap(),
        client_id: "baton".to_owned(),
        client_secret: SECRET.to_owned(),
        auth,
        scope: Some("tools files".to_owned()),
        resource: Some("https://mcp.example/mcp".to_owned()),
    };
    let url = Url::parse(&server.url()).unwrap();
    let endpoint = Endpoint::new(url, LONG, LONG).with_client_credentials(credentials);
    assert!(!format!("{endpoint:?}").contains("s3cret"));
    Server::new(endpoint, Guard::new(Policy::default()), |_| {})
}

async fn echo(client: &Server) -> Result<String, McpError> {
    let answer = client.call(ToolCall::of("echo")).await;
    answer.map(|answer| answer.done().unwrap().text)
}

fn guarded(number: usize) -> Manner {
    Manner::Guarded(TokenServer::token(number))
}

#[tokio::test]
async fn one_token_serves_many_calls_in_both_eras() {
    for era in [Era::Modern, Era::Legacy] {
        let server = McpServer::start(era, guarded(1)).await.unwrap();
        let tokens = TokenServer::start().await.unwrap();
        let client = client(&server, &tokens, ClientAuth::Basic);
        assert_eq!(client.tools().await.unwrap().tools.len(), 3);
        let (one, two) = tokio::join!(echo(&client), echo(&client));
        assert_eq!(
            (one.unwrap(), two.unwrap()),
            ("{}".to_owned(), "{}".to_owned())
        );
        let expected = TokenRequest {
            // `baton:s3cret+of%2Fthe+client`: both parts are encoded as in a form.
            authorization: "Basic YmF0b246czNjcmV0K29mJTJGdGhlK2NsaWVudA==".to_owned(),
            form: "grant_type=client_credentials&scope=tools+files&\
                   resource=https%3A%2F%2Fmcp.example%2Fmcp"
                .to_owned(),
        };
        assert_eq!(tokens.requests(), [expected]);
    }
}

#[tokio::test]
async fn a_client_may_send_its_secret_in_the_form() {
    let server = McpServer::start(Era::Modern, guarded(1)).await.unwrap();
    let tokens = TokenServer::start().await.unwrap();
    let client = client(&server, &tokens, ClientAuth::Form);
    client.tools().await.unwrap();
    let [request] = &tokens.requests()[..] else {
        panic!("{:?}", tokens.requests());
    };
    assert_eq!(request.authorization, "");
    let ends = "&client_id=baton&client_secret=s3cret+of%2Fthe+client";
    assert!(request.form.ends_with(ends), "{}", request.form);
}

/// A refused call has had no effect, so that it is repeated: once, with one new token for all calls.
#[tokio::test]
async fn a_refused_token_is_replaced_once() {
    let server = McpServer::start(Era::Modern, guarded(1)).await.unwrap();
    let tokens = TokenServer::start().await.unwrap();
    let client = client(&server, &tokens, ClientAuth::Basic);
    client.tools().await.unwrap();
    server.set_manner(guarded(2));
    let (one, two) = tokio::join!(echo(&client), echo(&client));
    assert!(one.is_ok() && two.is_ok(), "{one:?} {two:?}");
    assert_eq!(tokens.requests().len(), 2);
    assert_eq!(server.seen().calls.len(), 2, "each call was made once");

    server.set_manner(Manner::Guarded("another-token".to_owned()));
    assert_eq!(echo(&client).await, Err(McpError::Unauthorized));
    assert_eq!(tokens.requests().len(), 3);
}

#[tokio::test]
async fn a_token_is_replaced_before_its_end() {
    let server = McpServer::start(Era::Modern, Manner::Honest).await.unwrap();
    let tokens = TokenServer::start().await.unwrap();
    let client = client(&server, &tokens, ClientAuth::Basic);
    for (after, asked) in [(0, 1), (3_500, 1), (71, 2)] {
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(after)).await;
        tokio::time::resume();
        echo(&client).await.unwrap();
        assert_eq!(tokens.requests().len(), asked, "{after}");
    }
}

#[tokio::test]
async fn a_token_server_that_gives_none_is_named_without_a_secret() {
    let server = McpServer::start(Era::Modern, guarded(9)).await.unwrap();
    let tokens = TokenServer::start().await.unwrap();
    for (status, body, says) in [
        (
            401,
            json!({"error": "invalid_client"}),
            "401 Unauthorized and `invalid_client`",
        ),
        (400, json!({"error": format!("no {SECRET}")}), "`[secret]`"),
        (307, json!(null), "307"),
        (
            200,
            json!({"access_token": "a b", "token_type": "Bearer"}),
            "no bearer token",
        ),
        (
            200,
            json!({"access_token": "t", "token_type": "mac"}),
            "no bearer token",
        ),
        (200, json!({"token": "t"}), "holds no token"),
        (200, json!("x".repeat(70_000)), "too much"),
    ] {
        tokens.answer_with(StatusCode::from_u16(status).unwrap(), body);
        let client = client(&server, &tokens, ClientAuth::Basic);
        let error = client.tools().await.unwrap_err();
        let text = error.to_string();
        assert_eq!(error.kind(), "no_token", "{text}");
        assert!(!error.may_have_arrived());
        assert!(text.contains(says) && !text.contains("s3cret"), "{text}");
    }
    assert_eq!(server.seen().methods, [""; 0], "the server was not asked");
}

#[tokio::test]
async fn texts_of_the_server_are_cleared_of_tokens() {
    let server = McpServer::start(Era::Modern, Manner::TellsSecrets)
        .await
        .unwrap();
    let tokens = TokenServer::start().await.unwrap();
    let client = client(&server, &tokens, ClientAuth::Basic);
    let listing = client.tools().await.unwrap();
    let leak = listing.get("leak").unwrap();
    assert_eq!(leak.description, "You sent Bearer [secret]");
}
