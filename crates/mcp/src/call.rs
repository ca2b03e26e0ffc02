//! A call of a tool, and the server's answers to it.

use std::time::Duration;

use rmcp::model::{
    CallToolRequestParams, DetailedTask, ElicitRequestParams, GetTaskResult, InputRequest,
    InputRequiredResult, RequestMetaObject, Task, TaskPayload,
};
use serde_json::{Map, Value};

use crate::endpoint::Endpoint;
use crate::error::McpError;
use crate::outcome::CallOutcome;

/// The longest state that a server may leave with a call, in bytes.
const MAX_STATE: usize = 64 * 1024;
/// The most questions of a server at once.
const MAX_QUESTIONS: usize = 8;
/// The longest id of a task, in bytes.
const MAX_TASK_ID: usize = 1024;
/// The most bytes of the questions of a server at once.
const MAX_QUESTION_BYTES: usize = 32 * 1024;

/// A call of a tool.
#[derive(Debug, Clone, Default)]
pub struct ToolCall {
    /// The server's name for the tool.
    pub tool: String,
    /// Its arguments.
    pub arguments: Map<String, Value>,
    /// The request's `_meta`.
    pub meta: Map<String, Value>,
    /// The server's own state of the call, if it has asked for input before.
    pub state: Option<String>,
    /// The answers to the server's questions, by their ids.
    pub answers: Vec<(String, Value)>,
}

impl ToolCall {
    /// Makes a call without arguments.
    pub fn of(tool: &str) -> Self {
        Self {
            tool: tool.to_owned(),
            ..Self::default()
        }
    }

    pub(crate) fn into_params(self) -> CallToolRequestParams {
        let mut params = CallToolRequestParams::new(self.tool).with_arguments(self.arguments);
        if !self.meta.is_empty() {
            params.meta = Some(RequestMetaObject(self.meta.into()));
        }
        if !self.answers.is_empty() {
            params.input_responses = Some(self.answers.into_iter().collect());
        }
        params.request_state = self.state;
        params
    }
}

/// A server's answer to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallAnswer {
    /// The result.
    Done(CallOutcome),
    /// The server wants the call again, with answers to its questions.
    Input(InputNeeded),
    /// The server goes on with the call by itself.
    Task(NewTask),
}

/// A task that a server has begun for a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTask {
    /// The server's name for it.
    pub id: String,
    /// Its times.
    pub times: TaskTimes,
}

/// The times of a task, as its server says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TaskTimes {
    /// The time after which the server wants to be asked again.
    pub poll_after: Option<Duration>,
    /// The time for which the server keeps the task, from its beginning; `None` if for ever.
    pub kept_for: Option<Duration>,
}

/// The state of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskState {
    /// The server works on it.
    Working(TaskTimes),
    /// The server needs answers to these questions.
    Input(Vec<Question>, TaskTimes),
    /// It has this result.
    Done(CallOutcome),
    /// It ended without a result, for this reason.
    Failed(String),
}

impl NewTask {
    pub(crate) fn of(task: Task) -> Result<Self, McpError> {
        if task.task_id.is_empty() || task.task_id.len() > MAX_TASK_ID {
            return Err(McpError::TooMuch(format!(
                "a task id of more than {MAX_TASK_ID} bytes, or none"
            )));
        }
        Ok(Self {
            times: TaskTimes::of(&task),
            id: task.task_id,
        })
    }
}

impl TaskTimes {
    fn of(task: &Task) -> Self {
        Self {
            poll_after: task.poll_interval_ms.map(Duration::from_millis),
            kept_for: task.ttl_ms.map(Duration::from_millis),
        }
    }
}

impl TaskState {
    pub(crate) fn of(found: GetTaskResult, endpoint: &Endpoint) -> Result<Self, McpError> {
        let DetailedTask { task, payload, .. } = found.task;
        let times = TaskTimes::of(&task);
        let message = || {
            let message = task.status_message.clone().unwrap_or_default();
            endpoint.said(message)
        };
        Ok(match payload {
            TaskPayload::Working => Self::Working(times),
            TaskPayload::InputRequired { input_requests } => {
                let needed = InputRequiredResult::new(Some(input_requests), None);
                Self::Input(InputNeeded::of(needed, endpoint)?.questions, times)
            }
            TaskPayload::Completed { result } => {
                let result = serde_json::from_value(Value::Object(result)).map_err(|_| {
                    McpError::Protocol("the result of its task has another form".to_owned())
                })?;
                Self::Done(CallOutcome::of(&result).cleared(endpoint))
            }
            TaskPayload::Failed { error } => {
                let text = error
                    .get("message")
                    .and_then(Value::as_str)
                    .unwrap_or_default();
                Self::Failed(format!(
                    "its task failed: {}",
                    endpoint.said(text.to_owned())
                ))
            }
            TaskPayload::Cancelled => {
                Self::Failed(format!("its task was cancelled. {}", message()))
            }
            _ => return Err(McpError::Protocol("its task has another state".to_owned())),
        })
    }
}

impl CallAnswer {
    /// Returns the result, if the server has given one.
    pub fn done(self) -> Option<CallOutcome> {
        match self {
            Self::Done(outcome) => Some(outcome),
            Self::Input(_) | Self::Task(_) => None,
        }
    }
}

/// The input that a server needs before it goes on with a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputNeeded {
    /// The questions; none if the server only wants the call again, a little later.
    pub questions: Vec<Question>,
    /// The server's own state, which goes back to it as it is.
    pub state: Option<String>,
}

/// A question to a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The server's name for it.
    pub id: String,
    /// The text for the person.
    pub message: String,
    /// The schema of the answer; `None` if the person visits an address instead.
    pub schema: Option<Map<String, Value>>,
    /// The address that the person visits.
    pub url: Option<String>,
}

impl InputNeeded {
    /// Reads a server's questions. Only those to a person are taken.
    pub(crate) fn of(result: InputRequiredResult, endpoint: &Endpoint) -> Result<Self, McpError> {
        let state = result.request_state;
        if state.as_ref().is_some_and(|state| state.len() > MAX_STATE) {
            return Err(McpError::TooMuch(format!(
                "a request state of more than {MAX_STATE} bytes"
            )));
        }
        let requests = result.input_requests.unwrap_or_default();
        if requests.len() > MAX_QUESTIONS {
            return Err(McpError::TooMuch(format!(
                "more than {MAX_QUESTIONS} questions at once"
            )));
        }
        let written = serde_json::to_vec(&requests).map_or(usize::MAX, |json| json.len());
        if written > MAX_QUESTION_BYTES {
            return Err(McpError::TooMuch(format!(
                "questions of more than {MAX_QUESTION_BYTES} bytes"
            )));
        }
        let questions = requests
            .into_iter()
            .map(|(id, request)| Question::of(id, request, endpoint));
        Ok(Self {
            questions: questions.collect::<Result<_, _>>()?,
            state,
        })
    }
}

impl Question {
    fn of(id: String, request: InputRequest, endpoint: &Endpoint) -> Result<Self, McpError> {
        let asked = match request {
            InputRequest::Elicitation(request) => request.params,
            InputRequest::CreateMessage(_) => {
                return Err(McpError::Unsupported("an answer of a model (sampling)"));
            }
            InputRequest::ListRoots(_) => {
                return Err(McpError::Unsupported("a list of folders (roots)"));
            }
            _ => return Err(McpError::Unsupported("input of an unknown kind")),
        };
        match asked {
            ElicitRequestParams::FormElicitationParams {
                message,
                requested_schema,
                ..
            } => {
                let written = serde_json::to_string(&requested_schema).unwrap_or_default();
                let schema = serde_json::from_str(&endpoint.clear(written));
                let schema = schema.map_err(|_| {
                    McpError::Protocol("the schema of its question is no object".to_owned())
                })?;
                Ok(Self {
                    id,
                    message: endpoint.clear(message),
                    schema: Some(schema),
                    url: None,
                })
            }
            ElicitRequestParams::UrlElicitationParams { message, url, .. } => Ok(Self {
                id,
                message: endpoint.clear(message),
                schema: None,
                url: Some(endpoint.clear(url)),
            }),
            _ => Err(McpError::Unsupported("input of an unknown kind")),
        }
    }
}
