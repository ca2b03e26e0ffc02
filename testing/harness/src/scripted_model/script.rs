//! The choice of a reply for each request.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::HeaderMap;
use serde_json::Value;

use super::Reply;

/// A request as received.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// Its number among the requests, from 0.
    pub index: usize,
    /// The model that it names.
    pub model: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Value,
    /// Its body, byte for byte.
    pub bytes: Bytes,
}

impl Recorded {
    /// Returns whether it wants a stream.
    pub fn is_stream(&self) -> bool {
        self.body["stream"] == true
    }

    /// Returns the text of its last message with the given role.
    pub fn last_text(&self, role: &str) -> Option<&str> {
        let messages = self.body["messages"].as_array()?;
        messages.iter().rfind(|message| message["role"] == role)?["content"].as_str()
    }

    /// Returns the role of its last message.
    pub fn last_role(&self) -> Option<&str> {
        self.body["messages"].as_array()?.last()?["role"].as_str()
    }
}

/// The function that chooses the reply to a request.
#[derive(Clone)]
pub struct Script(pub(super) Arc<dyn Fn(&Recorded) -> Reply + Send + Sync>);

impl Script {
    /// Makes a script from a function.
    pub fn new(choose: impl Fn(&Recorded) -> Reply + Send + Sync + 'static) -> Self {
        Self(Arc::new(choose))
    }

    /// Gives the same reply to every request.
    pub fn always(reply: Reply) -> Self {
        Self::new(move |_| reply.clone())
    }

    /// Gives the replies in order; the last one also to every further request.
    pub fn sequence(replies: impl IntoIterator<Item = Reply>) -> Self {
        let replies: Vec<_> = replies.into_iter().collect();
        let next = Mutex::new(0);
        Self::new(move |_| {
            let mut next = next.lock().unwrap_or_else(PoisonError::into_inner);
            let reply = replies.get(*next).or(replies.last()).cloned();
            *next += 1;
            reply.unwrap_or_else(|| Reply::text("An empty script."))
        })
    }
}
