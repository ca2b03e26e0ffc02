//! Servers that are local programs.
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use baton_harness::mcp_server::program;
use baton_mcp::{CallOutcome, Endpoint, Health, McpError, Program, Server, ToolCall};
use baton_outbound::{Guard, Policy};
use tokio::sync::watch;
use tokio::time::timeout;

const LONG: Duration = Duration::from_mins(1);
const MEMORY: u64 = 64 << 20;

/// A server and all that is heard of it.
struct Heard {
    server: Server,
    lines: watch::Receiver<Vec<String>>,
    health: Arc<Mutex<Vec<bool>>>,
}

fn started(command: &[String], memory: u64) -> Heard {
    let (told, lines) = watch::channel(Vec::new());
    let (path, arguments) = command.split_first().unwrap();
    let on_line = move |line| told.send_modify(|lines| lines.push(line));
    let program = Program::new(path.into(), arguments.to_vec(), memory, on_line)
        .with_variable("SECRET".to_owned(), "a-secret-variable".to_owned());
    let health = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&health);
    let endpoint = Endpoint::of_program(program, LONG, LONG);
    let server = Server::new(endpoint, Guard::new(Policy::default()), move |health| {
        seen.lock().unwrap().push(*health == Health::Up);
    });
    Heard {
        server,
        lines,
        health,
    }
}

async fn call(server: &Server, tool: &str) -> Result<CallOutcome, McpError> {
    let answer = timeout(LONG, server.call(ToolCall::of(tool))).await;
    answer.unwrap().map(|answer| answer.done().unwrap())
}

async fn said(server: &Server, tool: &str) -> String {
    call(server, tool).await.unwrap().text
}

#[tokio::test]
async fn a_program_has_its_environment_alone_and_its_errors_are_heard_without_secrets() {
    let mut heard = started(&program(), MEMORY);
    let tools = heard.server.tools().await.unwrap();
    assert_eq!(tools.tools.len(), 6);
    let variables = said(&heard.server, "variables").await;
    assert_eq!(variables.trim(), "SECRET");
    said(&heard.server, "noise").await;
    let lines = heard.lines.wait_for(|lines| !lines.is_empty());
    let lines = timeout(LONG, lines).await.unwrap().unwrap().clone();
    assert_eq!(lines, ["noise with [secret]"]);
    assert_eq!(*heard.health.lock().unwrap(), [true]);
}

/// Guards the group: a child that holds the output open is killed too, whether the server is dropped or
/// ends by itself.
#[tokio::test]
async fn nothing_that_a_program_began_outlives_it() {
    for crashes in [false, true] {
        let heard = started(&program(), MEMORY);
        let ids = said(&heard.server, "children").await;
        let ids: Vec<u32> = ids.split(' ').map(|id| id.parse().unwrap()).collect();
        assert!(ids.iter().all(|id| is_alive(*id)), "{ids:?}");
        if crashes {
            let crashed = heard.server.call(ToolCall::of("crash"));
            let _unanswered = timeout(Duration::from_millis(500), crashed).await;
            said(&heard.server, "say").await;
        } else {
            drop(heard);
        }
        while ids.iter().any(|id| is_alive(*id)) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Returns whether a process runs. One that nobody has reaped does not.
fn is_alive(id: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    let state = stat
        .rsplit(") ")
        .next()
        .and_then(|rest| rest.chars().next());
    state.is_some_and(|state| state != 'Z')
}

/// Guards the restart: at once after the first end, then after a rest that a call does not wait for.
#[tokio::test]
async fn a_program_that_keeps_ending_costs_its_calls_and_rests() {
    let heard = started(&program(), MEMORY);
    let first = said(&heard.server, "say").await;
    for _ in 0..2 {
        let crashed = call(&heard.server, "crash").await.unwrap_err();
        assert!(crashed.may_have_arrived(), "{crashed}");
        if let Ok(outcome) = call(&heard.server, "say").await {
            assert_ne!(outcome.text, first);
        }
    }
    let resting = call(&heard.server, "say").await.unwrap_err();
    let McpError::Ended(how) = &resting else {
        panic!("{resting:?}")
    };
    assert_eq!(how, "it ended with the exit code 3");
    assert!(!resting.may_have_arrived());
    assert_eq!(*heard.health.lock().unwrap(), [false]);
    while call(&heard.server, "say").await.is_err() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_program_has_no_more_memory_than_it_may() {
    let heard = started(&program(), MEMORY);
    call(&heard.server, "hoard").await.unwrap_err();
    said(&heard.server, "say").await;
    let roomy = started(&program(), 4 << 30);
    assert_eq!(said(&roomy.server, "hoard").await, "200000000");
}

#[tokio::test]
async fn a_program_that_is_not_there_says_so() {
    let heard = started(&["/nowhere/at/all".to_owned()], MEMORY);
    let error = heard.server.tools().await.unwrap_err();
    let McpError::NotStarted(why) = &error else {
        panic!("{error:?}")
    };
    assert!(why.contains("No such file"), "{why}");
    assert!(!error.may_have_arrived());
}
