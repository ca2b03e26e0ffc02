//! The numbers of events in a simulation.

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// The numbers of events.
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
    /// Killed processes.
    crashes,
    /// Processes frozen for a while.
    freezes,
    /// Workers that were asked to stop.
    stops,
    /// Workers cut off from the broker or the ledger, in one direction or both.
    partitions,
    /// Workers that the broker wrongly reported as gone.
    unseen,
    /// Runs taken before their lease expired.
    taken_early,
    /// Losses of all jobs by the broker.
    wiped_jobs,
    /// Lost messages.
    lost_messages,
    /// Requests that were given up without an answer.
    unanswered,
    /// Live events that were delivered twice.
    heard_twice,
    /// Redelivered jobs.
    redeliveries,
    /// Lost jobs that were published again.
    republished,
    /// Expired leases.
    expired_leases,
    /// Runs handed over.
    hand_overs,
    /// Logs taken over by later attempts.
    resets,
    /// Attempts refused by the ledger.
    refused_commits,
    /// Appends refused by the log.
    refused_appends,
    /// Replaced attempts that learned of it from the log.
    refused_zombies,
    /// Appends of older attempts between a look at the log and the append.
    stragglers,
    /// Stored appends with a lost answer.
    lost_acks,
    /// Gaps that followers noticed.
    gaps,
    /// Reconnects of clients.
    reconnects,
    /// Cancels that were requested while a worker held the run.
    cancels_requested,
    /// Runs cancelled by their holder.
    cancelled_at_work,
    /// Runs cancelled without a holder.
    cancelled_while_idle,
    /// Missing ends and questions that another process appended.
    told_by_others,
    /// Ends that a relay found without having heard of them.
    mended,
    /// Answers of the model that broke off.
    broken_turns,
    /// Broken-off answers that were withdrawn.
    withdrawn_turns,
    /// Appends that the broker refused for a while.
    refused_events,
    /// Logs that reached their limit.
    full_logs,
    /// Turns that waited for the budget.
    budget_waits,
    /// Turns that were refused because too little of the budget was left.
    spent_budgets,
    /// Runs that failed because their key was revoked.
    revoked,
    /// Jobs of runs that were given up.
    quarantined,
    /// Entries in the audit log.
    audited,
    /// Parked runs.
    parked,
    /// Decisions that took effect.
    decided,
    /// Decisions that came after another one, or after the end.
    decided_too_late,
    /// Questions that expired.
    expired_questions,
    /// Messages to runs that were accepted.
    sent_inputs,
    /// Messages that came after the end of their run.
    refused_inputs,
    /// Messages that became a step of their run.
    applied_inputs,
    /// Messages that their run handed back.
    returned_inputs,
    /// Ends that gave way to a message.
    ends_given_way,
    /// Claims that had to wait for the thread.
    thread_waits,
    /// Runs that were refused because the thread was busy, or because the run to follow had ended.
    refused_runs,
    /// Requests that joined a run as its message.
    steered,
    /// Runs that were cancelled for another one of the thread.
    replaced,
    /// Runs that left nothing in the thread.
    rolled_back,
    /// Completed runs.
    completed,
    /// Runs that failed because of their model.
    failed,
    /// Runs that failed because they were lost too often.
    poisoned,
    /// Cancelled runs.
    cancelled,
}
