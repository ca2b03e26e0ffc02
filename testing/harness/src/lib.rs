//! Drivers of Baton and the servers that it needs, for tests and benches only.

pub mod asker;
pub mod bare_pipe;
pub mod bench_upstream;
pub mod chaos;
pub mod checker;
pub mod client;
pub mod dialects;
pub mod guards;
pub mod ledger_floor;
pub mod load;
mod logins;
pub mod mcp_server;
pub mod process_usage;
pub mod recovery;
pub mod resumes;
pub mod samples;
pub mod scripted_model;
pub mod small_disk;
pub mod span_receiver;
pub mod stack;
pub mod thread_lists;
pub mod token_server;
