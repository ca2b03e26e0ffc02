//! The agent's loop as pure rules: the next action, given the recorded steps. No I/O, no clock.

pub mod transcript;
pub mod turn_machine;

pub use transcript::Transcript;
pub use turn_machine::{
    Call, CallSide, FinishedTurn, Next, Recorded, RecordedCall, TurnMachine, TurnVerdict,
};
