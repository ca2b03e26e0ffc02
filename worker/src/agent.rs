//! The agent's loop as pure rules: what to do next, given what is recorded. No I/O, no clock.

pub mod transcript;
pub mod turn_machine;

pub use transcript::Transcript;
pub use turn_machine::{
    Call, CallSide, FinishedTurn, Next, Recorded, RecordedCall, TurnMachine, TurnVerdict,
};
