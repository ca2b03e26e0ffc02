//! What happened in a simulation, how often.

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What happened, how often.
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub struct Counts {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl std::ops::AddAssign<&Counts> for Counts {
            fn add_assign(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
            }
        }
    };
}

counts! {
    /// Processes were killed.
    crashes,
    /// Processes were frozen for a while.
    freezes,
    /// Workers were told to stop.
    stops,
    /// Workers were cut off from the broker or the ledger, one way or both.
    partitions,
    /// Workers were taken for gone by the broker.
    unseen,
    /// Runs were taken before their lease had run out.
    taken_early,
    /// The broker lost all jobs.
    wiped_jobs,
    /// Messages were lost.
    lost_messages,
    /// Requests were given up without an answer.
    unanswered,
    /// Live events were heard twice.
    heard_twice,
    /// Jobs were delivered again.
    redeliveries,
    /// Jobs that were gone were published again.
    republished,
    /// Leases ran out.
    expired_leases,
    /// Runs were handed over.
    hand_overs,
    /// Later attempts took a log over.
    resets,
    /// The ledger refused an attempt.
    refused_commits,
    /// The log refused an append.
    refused_appends,
    /// A replaced attempt learned of it from the log.
    refused_zombies,
    /// An older attempt got in between a look at the log and the append.
    stragglers,
    /// An append was stored, and the answer lost.
    lost_acks,
    /// Followers noticed that they had missed something.
    gaps,
    /// Clients connected again.
    reconnects,
    /// Cancels were asked for while a worker held the run.
    cancels_requested,
    /// Runs were cancelled by their holder.
    cancelled_at_work,
    /// Runs were cancelled that nobody held.
    cancelled_while_idle,
    /// An end or a question was stored by somebody who found it missing.
    told_by_others,
    /// A relay found a run ended without having heard so.
    mended,
    /// Runs were parked.
    parked,
    /// Decisions were taken.
    decided,
    /// Decisions came after another, or after the end.
    decided_too_late,
    /// Questions that nobody answered were given up.
    expired_questions,
    /// Runs completed.
    completed,
    /// Runs failed, by their model.
    failed,
    /// Runs failed because they were lost too often.
    poisoned,
    /// Runs were cancelled.
    cancelled,
}
