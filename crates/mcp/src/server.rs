//! A server that is used again and again: one connection, and its list of tools.

use std::sync::Arc;
use std::time::Duration;

use baton_outbound::Guard;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::call::{CallAnswer, TaskState, ToolCall};
use crate::connection::Connection;
use crate::endpoint::Endpoint;
use crate::error::McpError;
use crate::listing::Listing;

/// The time for which a server that failed is not asked again, so that not every run waits for it.
const REST: Duration = Duration::from_secs(10);
/// The time after which a program that ends counts as one that ran well.
const STEADY: Duration = Duration::from_mins(1);
/// The longest rest of a program that keeps ending.
const LONGEST_REST: Duration = Duration::from_mins(1);
/// The longest time for which a list holds, whatever the server says.
const LONGEST_LIST: Duration = Duration::from_hours(1);

/// A change of a server's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It answers, for the first time or again.
    Up,
    /// It cannot be used.
    Down(McpError),
}

/// A server. Everything that uses it shares one connection.
pub struct Server {
    endpoint: Arc<Endpoint>,
    guard: Guard,
    state: Mutex<State>,
    /// Called when the state changes.
    on_change: Box<dyn Fn(&Health) + Send + Sync>,
}

#[derive(Default)]
struct State {
    connection: Option<Arc<Connection>>,
    list: Option<(Arc<Listing>, Instant)>,
    /// The last failure, and the time from which the server is asked again.
    failed: Option<(McpError, Instant)>,
    /// The number of times in a row that the server's program ended soon after its start.
    short_lives: u32,
    /// Whether the last use succeeded; none before the first.
    up: Option<bool>,
}

impl Server {
    /// Makes a server; nothing is connected yet. `on_change` hears of each change between usable and
    /// not.
    pub fn new(
        endpoint: Endpoint,
        guard: Guard,
        on_change: impl Fn(&Health) + Send + Sync + 'static,
    ) -> Self {
        Self {
            endpoint: Arc::new(endpoint),
            guard,
            state: Mutex::default(),
            on_change: Box::new(on_change),
        }
    }

    /// Returns the endpoint.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Returns the server's tools: as listed before while that holds, or if the server cannot be asked
    /// now.
    pub async fn tools(&self) -> Result<Arc<Listing>, McpError> {
        let mut state = self.state.lock().await;
        let changed = state
            .connection
            .as_ref()
            .is_some_and(|it| it.take_list_changed());
        if let Some((list, until)) = &state.list
            && !changed
            && Instant::now() < *until
        {
            return Ok(Arc::clone(list));
        }
        let listed = self.list(&mut state).await;
        match (listed, &state.list) {
            (Ok(list), _) => Ok(list),
            (Err(_), Some((earlier, _))) => Ok(Arc::clone(earlier)),
            (Err(error), None) => Err(error),
        }
    }

    /// Calls a tool. Dropping the future cancels the call at the server.
    pub async fn call(&self, call: ToolCall) -> Result<CallAnswer, McpError> {
        self.connection().await?.call(call).await
    }

    /// Returns the state of a task.
    pub async fn task(&self, id: &str) -> Result<TaskState, McpError> {
        self.connection().await?.task(id).await
    }

    /// Gives a task the answers to its questions, by their ids.
    pub async fn answer_task(
        &self,
        id: &str,
        answers: Vec<(String, Value)>,
    ) -> Result<(), McpError> {
        self.connection().await?.answer_task(id, answers).await
    }

    /// Asks the server to end a task.
    pub async fn cancel_task(&self, id: &str) -> Result<(), McpError> {
        self.connection().await?.cancel_task(id).await
    }

    async fn connection(&self) -> Result<Arc<Connection>, McpError> {
        let mut state = self.state.lock().await;
        self.connect(&mut state).await
    }

    async fn list(&self, state: &mut State) -> Result<Arc<Listing>, McpError> {
        let connection = self.connect(state).await?;
        let listing = match connection.list_tools().await {
            Ok(listing) => listing,
            Err(error) => return Err(self.failed(state, error)),
        };
        let holds = listing.ttl.unwrap_or(self.endpoint.list_for);
        let until = Instant::now() + holds.min(LONGEST_LIST);
        let listing = Arc::new(listing);
        state.list = Some((Arc::clone(&listing), until));
        state.failed = None;
        if state.up != Some(true) {
            state.up = Some(true);
            (self.on_change)(&Health::Up);
        }
        Ok(listing)
    }

    /// Returns the open connection, or opens one.
    async fn connect(&self, state: &mut State) -> Result<Arc<Connection>, McpError> {
        if let Some(connection) = &state.connection {
            if !connection.is_closed() {
                return Ok(Arc::clone(connection));
            }
            if let Some((how, lived)) = connection.end_program() {
                self.rest_of_program(state, how, lived)?;
            }
        }
        if let Some((error, until)) = &state.failed
            && Instant::now() < *until
        {
            return Err(error.clone());
        }
        match Connection::open(Arc::clone(&self.endpoint), &self.guard).await {
            Ok(connection) => Ok(Arc::clone(state.connection.insert(Arc::new(connection)))),
            Err(error) => Err(self.failed(state, error)),
        }
    }

    /// Records a failure. The next use opens a new connection, because a server that was replaced may
    /// speak another version.
    fn failed(&self, state: &mut State, error: McpError) -> McpError {
        self.failed_for(state, error, REST)
    }

    /// Returns an error if a program that has ended is not started again at once: it is after its first short
    /// life in a row, and rests for one second after the second, then twice as long each time.
    fn rest_of_program(
        &self,
        state: &mut State,
        how: String,
        lived: Duration,
    ) -> Result<(), McpError> {
        state.connection = None;
        state.short_lives = if lived < STEADY {
            state.short_lives.saturating_add(1)
        } else {
            0
        };
        let Some(doublings) = state.short_lives.checked_sub(2) else {
            return Ok(());
        };
        let rest = Duration::from_secs(1 << doublings.min(6)).min(LONGEST_REST);
        Err(self.failed_for(state, McpError::Ended(how), rest))
    }

    fn failed_for(&self, state: &mut State, error: McpError, rest: Duration) -> McpError {
        state.connection = None;
        state.failed = Some((error.clone(), Instant::now() + rest));
        if state.up != Some(false) {
            state.up = Some(false);
            (self.on_change)(&Health::Down(error.clone()));
        }
        error
    }
}
