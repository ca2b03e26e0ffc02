//! For tests only: the rules for arbitrary bytes from outside, one function for each reader of such
//! bytes. A function panics if its rule is broken.
//!
//! `testing/fuzz` looks for such bytes, guided by coverage, and keeps those that reach new code in
//! its `corpus`; the test of this crate gives them, and mutations of them, to the same functions in
//! every `make test`.
//!
//! To add a reader: a function here, its line in [`TARGETS`], a target in `testing/fuzz` that calls
//! it, and a few seeds in its corpus.

#![expect(
    clippy::missing_panics_doc,
    reason = "a panic is how a function here says what it found"
)]

mod access_token;
mod event;
mod intake;
mod job;
mod jwks;
mod model_stream;
mod secret_text;
mod splits;
mod sse;

pub use access_token::access_token;
pub use event::event;
pub use intake::intake;
pub use job::job;
pub use jwks::jwks;
pub use model_stream::model_stream;
pub use secret_text::secret_text;
pub use sse::sse;

/// A function that reads bytes and panics if a rule is broken.
pub type Check = fn(&[u8]);

/// Every function by its name, which is also that of its fuzz target and its corpus.
pub const TARGETS: [(&str, Check); 8] = [
    ("access_token", access_token),
    ("event", event),
    ("intake", intake),
    ("job", job),
    ("jwks", jwks),
    ("model_stream", model_stream),
    ("secret_text", secret_text),
    ("sse", sse),
];
