//! For tests and benches only: what drives a Baton from outside, and what stands behind it.

pub mod asker;
pub mod bench_upstream;
pub mod chaos;
pub mod checker;
pub mod client;
pub mod dialects;
pub mod guards;
pub mod load;
mod logins;
pub mod process_usage;
pub mod recovery;
pub mod samples;
pub mod scripted_model;
pub mod small_disk;
pub mod stack;
