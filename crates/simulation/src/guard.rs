//! What a simulation can be told: which mechanism to leave out, and whether to tell all.

macro_rules! guards {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A mechanism that a simulation can do without, to show that it is needed.
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
    /// A follower that hears nothing looks at the log.
    LookWhenIdle,
    /// A claim whose answer was lost is repeated with the same token.
    RepeatableClaim,
    /// The scheduler looks for runs that nobody would come for.
    Sweep,
    /// A refused append looks whose message stands last.
    TipBeforeAdopting,
    /// A refused append knows its own bytes.
    OwnAppend,
    /// Whoever finds a run ended makes sure that its log says so.
    TerminalEvent,
    /// What a step shows is stored before the step is committed.
    ShownBeforeCommitted,
    /// That a call begins which must not be repeated is noted before.
    StartNote,
    /// A decision holds for one beginning of the call.
    DecisionUsedUp,
    /// A run is taken early only if its row was left alone.
    Silence,
    /// A worker that nobody asks for writes to its rows.
    SignOfLife,
    /// A worker that cannot confirm its lease stops.
    GiveUp,
}

/// How to simulate.
#[derive(Debug, Clone, Copy, Default)]
pub struct Setup {
    /// What is switched off.
    pub without: Option<Guard>,
    /// Whether to tell everything that happens.
    pub trace: bool,
}
