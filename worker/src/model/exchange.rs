//! HTTP as the client of a model needs it.

use std::fmt::Debug;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use reqwest::{Client, Request, Response};

/// A way to send a request and get the beginning of its answer.
pub trait Exchange: Debug + Send + Sync {
    /// Sends a request. Dropping the answer's body tells the server to stop.
    fn send(&self, request: Request) -> BoxFuture<'_, reqwest::Result<Response>>;
}

impl Exchange for Client {
    fn send(&self, request: Request) -> BoxFuture<'_, reqwest::Result<Response>> {
        self.execute(request).boxed()
    }
}
