//! The world around Baton: an upstream with an answer that is known from the question, and a server
//! of tools that records each call.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use baton_invariants::Invariant;
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, StatusCode, header};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use super::record::Recorder;
use super::speech::{Dialect, Reply};
use crate::checker::What;
use crate::mcp_server::{McpServer, Observer};

/// The model of the talkers, and the title of their threads. The conversations that this model is sent are
/// recorded.
pub const TALK: &str = "talk";

/// The most characters of a title by a model.
const LONGEST_TITLE: usize = 120;
/// The model that titles some of their threads.
pub const TITLER: &str = "titler";

/// The model of responses that ask for an approval.
pub const ASKER: &str = "asker";
/// The MCP server with the tool that they call.
pub const DESK: &str = "desk";
/// The tool of that server by the name that the model has for it.
pub const ASKED: &str = "desk__echo";

/// A client's request, encoded in its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prompt {
    /// A number that makes its answer unlike every other.
    pub id: u64,
    /// The number of words in the answer.
    pub words: u64,
    /// The time for each word, in milliseconds.
    pub gap_ms: u64,
    /// The number of tool turns that come first.
    pub tool_turns: u64,
}

impl Prompt {
    /// Returns the message.
    pub fn text(&self) -> String {
        format!(
            "chaos {} {} {} {}",
            self.id, self.words, self.gap_ms, self.tool_turns
        )
    }

    /// Reads a message.
    pub fn read(text: &str) -> Option<Self> {
        let mut numbers = text.strip_prefix("chaos ")?.split(' ').map(str::parse);
        let mut next = || numbers.next()?.ok();
        Some(Self {
            id: next()?,
            words: next()?,
            gap_ms: next()?,
            tool_turns: next()?,
        })
    }

    /// Returns whether the run calls the tool that a person must approve.
    pub fn calls_the_guarded_tool(&self) -> bool {
        self.id.is_multiple_of(4)
    }

    /// Returns the text before the tool calls of a turn.
    pub(super) fn preamble(&self, turn: u64) -> String {
        format!("Schritt {turn} für {}. ", self.id)
    }

    pub(super) fn word(&self, index: u64) -> String {
        format!("{}·{index} ", self.id)
    }

    /// Returns the title that a thread gets from the answer of [`TITLER`].
    pub fn title(&self) -> String {
        let words = (0..self.words).map(|index| self.word(index));
        let words: String = words.collect();
        words.trim_end().chars().take(LONGEST_TITLE).collect()
    }

    /// Counts the words of the answer in a text.
    fn words_in(&self, text: &str) -> u64 {
        text.matches(&format!("{}·", self.id)).count() as u64
    }

    /// Returns the text of the whole answer, over all turns.
    pub fn expected(&self) -> String {
        let mut text: String = (0..self.tool_turns)
            .map(|turn| self.preamble(turn))
            .collect();
        for index in 0..self.words {
            text.push_str(&self.word(index));
        }
        text
    }
}

/// The upstream and the tools, in this process.
#[derive(Debug)]
pub struct Outside {
    /// The address of both: the model below `/v1`, the tools below `/tools`.
    pub address: SocketAddr,
    ailment: watch::Sender<Option<Ailment>>,
    desk: McpServer,
}

/// A failure of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ailment {
    /// Status 429, with a retry after a second.
    TooMany,
    /// Status 500.
    Internal,
    /// Status 503.
    Unavailable,
    /// A frame that is not JSON, in the middle of an answer.
    BadJson,
    /// An error object in the middle of an answer.
    ErrorFrame,
    /// An answer that ends in its middle, as if that were in order.
    Short,
}

impl Ailment {
    /// All failures.
    pub const ALL: [Self; 6] = [
        Self::TooMany,
        Self::Internal,
        Self::Unavailable,
        Self::BadJson,
        Self::ErrorFrame,
        Self::Short,
    ];

    /// Returns its name in the report.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TooMany => "429",
            Self::Internal => "500",
            Self::Unavailable => "503",
            Self::BadJson => "bad JSON",
            Self::ErrorFrame => "error in a stream",
            Self::Short => "short answer",
        }
    }

    /// Returns the refusal that replaces an answer.
    fn refusal(self) -> Option<Response> {
        let status = match self {
            Self::TooMany => StatusCode::TOO_MANY_REQUESTS,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::BadJson | Self::ErrorFrame | Self::Short => return None,
        };
        let error = json!({"error": {"message": "not now", "type": "chaos", "code": null}});
        Some((status, [(header::RETRY_AFTER, "1")], Json(error)).into_response())
    }

    /// Breaks an answer off in its middle.
    fn spoil(self, frames: &mut Vec<String>) {
        frames.truncate(frames.len() / 2);
        match self {
            Self::BadJson => frames.push("data: {\"choices\":[{\"delta\":{\n\n".to_owned()),
            Self::ErrorFrame => {
                let error = json!({"error": {"message": "not any more", "code": 500}});
                frames.push(format!("data: {error}\n\n"));
            }
            _ => {}
        }
    }
}

/// Fields of a request that would choose another model, endpoint or credential. None of them may
/// reach the model.
pub const SMUGGLED: [&str; 8] = [
    "extra_body",
    "models",
    "fallbacks",
    "api_base",
    "base_url",
    "api_key",
    "provider",
    "mock_response",
];

/// The state of the model's and the tools' handlers.
#[derive(Debug, Clone)]
struct Handler {
    recorder: Arc<Recorder>,
    ailment: watch::Receiver<Option<Ailment>>,
}

/// The tools: their names, and whether repeating a call is harmless.
pub const TOOLS: [(&str, bool); 3] = [("tally", true), ("strike", false), (GUARDED, false)];

/// The tool that a person must approve.
pub const GUARDED: &str = "levy";

impl Outside {
    /// Begins to serve, as long as the runtime lives.
    pub async fn start(recorder: Arc<Recorder>) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (ailment, ailing) = watch::channel(None);
        let desk = McpServer::observed(observer(Arc::clone(&recorder))).await?;
        let handler = Handler {
            recorder,
            ailment: ailing,
        };
        let router = Router::new()
            .route("/v1/chat/completions", post(complete))
            .route("/tools/{tool}", post(call_tool))
            // Requests may be as large as a client's.
            .layer(DefaultBodyLimit::disable())
            .with_state(handler);
        TaskTracker::new().spawn(async move { axum::serve(listener, router).await });
        Ok(Self {
            address,
            ailment,
            desk,
        })
    }

    /// Gives many answers this failure from now on; `None` ends that.
    pub fn set(&self, ailment: Option<Ailment>) {
        self.ailment.send_replace(ailment);
    }

    /// Returns the configuration file with the tools.
    pub fn config(&self) -> String {
        let mut config = format!("[tools]\napproval_required = [\"{GUARDED}\"]\n\n");
        for (name, idempotent) in TOOLS {
            // Writing to a string cannot fail.
            let _ = writeln!(
                config,
                "[[tools.http]]\nname = \"{name}\"\ndescription = \"Counts\"\n\
                 url = \"http://{}/tools/{name}\"\nidempotent = {idempotent}\ntimeout = \"5s\"\n",
                self.address
            );
        }
        let _ = writeln!(
            config,
            "[[mcp.servers]]\nname = \"{DESK}\"\nurl = \"{}\"\ntools = [\"echo\"]\ntimeout = \"5s\"",
            self.desk.url()
        );
        config
    }
}

/// Records the calls of the MCP server as those of the other tools are.
fn observer(recorder: Arc<Recorder>) -> Observer {
    Box::new(move |call| {
        let key = &call["_meta"]["idempotencyKey"];
        recorder.note(What::Tool {
            key: key.as_str().unwrap_or_default().to_owned(),
            tool: ASKED.to_owned(),
            idempotent: false,
            arguments: call["arguments"].to_string(),
        });
    })
}

async fn call_tool(
    State(handler): State<Handler>,
    Path(tool): Path<String>,
    headers: HeaderMap,
    arguments: String,
) -> Response {
    let key = headers.get("idempotency-key");
    let Some(key) = key.and_then(|key| key.to_str().ok()) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let idempotent = TOOLS.contains(&(tool.as_str(), true));
    handler.recorder.note(What::Tool {
        key: key.to_owned(),
        tool,
        idempotent,
        arguments,
    });
    // Long enough that a worker may die meanwhile.
    tokio::time::sleep(Duration::from_millis(100)).await;
    "counted".into_response()
}

async fn complete(State(handler): State<Handler>, body: Bytes) -> Response {
    let Ok(request) = serde_json::from_slice::<Value>(&body) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    if let Some(field) = SMUGGLED.iter().find(|field| request.get(**field).is_some()) {
        handler.recorder.note(What::Breach {
            invariant: Invariant::I25,
            found: format!("the model was sent a client's {field}"),
        });
    }
    let messages = request["messages"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
    let prompts = messages.iter().enumerate();
    let prompts: Vec<(usize, Prompt)> = prompts
        .filter(|(_, message)| message["role"] == "user")
        .filter_map(|(place, message)| Some((place, Prompt::read(message["content"].as_str()?)?)))
        .collect();
    if request["model"] == TALK {
        let prompts = prompts.iter().map(|(_, prompt)| prompt.id).collect();
        handler.recorder.note(What::Prompted { prompts });
    }
    let ailment = *handler.ailment.borrow();
    let ailment = ailment.filter(|_| rand::random_bool(0.6));
    if let Some(refusal) = ailment.and_then(Ailment::refusal) {
        return refusal;
    }
    let Some((asked, mut prompt)) = prompts.last().copied() else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let asks = request["model"] == ASKER;
    let titles = request["model"] == TITLER;
    if titles {
        handler.recorder.note(What::Titling {
            source: prompt.text(),
        });
    }
    if titles || asks {
        prompt.tool_turns = u64::from(asks);
    }
    let answers = messages[asked..].iter();
    let answers = answers.filter(|message| message["role"] == "assistant");
    let (mut turn, mut shown) = (0, 0);
    for answer in answers {
        // Any other one is the beginning of the answer, which was cut off at a limit.
        if answer["tool_calls"].is_array() {
            turn += 1;
        } else {
            shown += prompt.words_in(answer["content"].as_str().unwrap_or_default());
        }
    }
    let most = ["max_tokens", "max_completion_tokens"];
    let most = most.iter().find_map(|field| request[*field].as_u64());
    let reply = Reply {
        prompt,
        asks,
        // As many as the limits of a run reserve for it: each further token would exceed them.
        asked: u32::try_from(body.len()).unwrap_or(u32::MAX),
        turn,
        shown,
        most: most.unwrap_or(u64::MAX),
    };
    let mut frames = Dialect::any().frames(&reply);
    if let Some(ailment) = ailment {
        ailment.spoil(&mut frames);
    }
    let gap = Duration::from_millis(prompt.gap_ms);
    let body = stream::unfold(frames.into_iter(), move |mut frames| async move {
        let frame = frames.next()?;
        tokio::time::sleep(gap).await;
        Some((
            Ok::<_, std::convert::Infallible>(Bytes::from(frame)),
            frames,
        ))
    });
    let kind = [(header::CONTENT_TYPE, "text/event-stream")];
    (kind, Body::from_stream(body)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_read_as_it_was_written() {
        let prompt = Prompt {
            id: 7,
            words: 3,
            gap_ms: 1,
            tool_turns: 2,
        };
        assert_eq!(Prompt::read(&prompt.text()), Some(prompt));
    }
}
