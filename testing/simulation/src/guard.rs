//! The setup of a simulation: the mechanism to leave out, and the trace.

macro_rules! guards {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A mechanism that a simulation can leave out, to show that it is needed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Guard {
            $($(#[$doc])* $name,)*
        }

        impl Guard {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];
        }
    };
}

guards! {
    /// The ledger checks the attempt and its token in every write.
    AttemptFence,
    /// The log refuses an append that does not follow its last message.
    CompareAndSet,
    /// A follower that misses an event reads the log.
    GapCheck,
    /// A follower that hears nothing compares the log's tip.
    LookWhenIdle,
    /// A claim with a lost answer is repeated with the same token.
    RepeatableClaim,
    /// The scheduler requeues runs with an expired lease or a lost job.
    Sweep,
    /// A refused append checks which attempt wrote the last message.
    TipBeforeAdopting,
    /// A refused append recognises its own bytes.
    OwnAppend,
    /// A process that finds a run ended repairs the end of its log.
    TerminalEvent,
    /// The scheduler appends the ends of runs that no job leads to.
    UnloggedEnds,
    /// The events of a step are stored before the step is committed.
    ShownBeforeCommitted,
    /// The start of a call that must not be repeated is recorded first.
    StartNote,
    /// A decision holds for one start of the call.
    DecisionUsedUp,
    /// A run is taken early only if its row is unchanged.
    Silence,
    /// A worker that no scheduler asks for writes to its rows.
    SignOfLife,
    /// A worker that cannot confirm its lease stops.
    GiveUp,
    /// An answer that broke off is withdrawn before the model is asked again.
    WithdrawnTurn,
    /// A turn reserves its tokens before the model is asked.
    Budget,
    /// A claim checks the key that the run was submitted with.
    KeyCheck,
    /// A run ends before its log drops its oldest events.
    EventLimit,
    /// A run is given back if the log refuses its events.
    GivingBack,
    /// A run on a thread begins only when no other one is at work.
    ThreadTurn,
    /// Runs of a thread begin in the order of their ids.
    ThreadOrder,
    /// A run that may not wait is refused while the thread is busy.
    BusyRefusal,
    /// A run that interrupts cancels the others of its thread.
    OthersCancelled,
    /// The end of a run that was rolled back leaves nothing in the thread.
    RolledBackEnd,
    /// A run does not end with an answer while a message waits for it.
    EndGivesWay,
    /// The commit that records a message marks it as taken.
    InputTaken,
    /// The ledger notes the event that shows the acceptance of a message.
    AcceptedNote,
}

/// The setup of a simulation.
#[derive(Debug, Clone, Copy, Default)]
pub struct Setup {
    /// The mechanism to leave out.
    pub without: Option<Guard>,
    /// Whether to record a trace.
    pub trace: bool,
}
