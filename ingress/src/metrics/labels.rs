//! The values of labels. Each set is closed, so that every series exists from the start.

macro_rules! labels {
    ($($(#[$doc:meta])* $name:ident { $($(#[$what:meta])* $value:ident = $word:literal,)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum $name {
            $($(#[$what])* $value,)*
        }

        impl $name {
            /// The names of all values.
            pub(super) const NAMES: &[&str] = &[$($word,)*];

            pub(crate) const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$value => $word,)*
                }
            }
        }
    )*};
}

labels! {
    /// The kind of route that a stream serves.
    Wire {
        Chat = "chat",
        Native = "native",
        Responses = "responses",
    }

    /// The door through which a run was submitted.
    Door {
        Chat = "chat",
        Runs = "runs",
        Responses = "responses",
        Tools = "tools",
        Bus = "bus",
    }

    /// The result of a message that a program submitted.
    SubmissionEnd {
        /// It is a run, new or existing.
        Accepted = "accepted",
        /// It was refused, and the program was informed.
        Refused = "refused",
        /// Refused, and a copy is kept for an operator.
        Quarantined = "quarantined",
        /// Refused without a copy: its publisher has enough copies, or the copy could not be kept.
        Dropped = "dropped",
        /// There was no room for it at this moment.
        Busy = "busy",
    }

    /// The result of a message to a run that works.
    InputEnd {
        /// It waits for the run's next step.
        Accepted = "accepted",
        /// It was sent before, with the same id.
        Known = "known",
        /// Too many messages wait for the run.
        Full = "full",
        /// The run has ended.
        Ended = "ended",
        /// There is no such run, or another run has a message with the same id.
        Refused = "refused",
    }

    /// The result of a wish for the title of a thread.
    TitleEnd {
        /// A run asks the model.
        Asked = "asked",
        /// Another run asks for it, or the thread has a title by now.
        NotWanted = "not_wanted",
        /// The model may not be asked; the next run of the thread tries again.
        Refused = "refused",
    }

    /// The reason for dropping a program's message unread.
    Dropped {
        /// There was no room for it: too many messages wait, in total or of its key.
        Full = "full",
        /// It is larger than the limit for messages on the bus.
        TooLarge = "too_large",
        /// Its subject has no form that an ingress subscribes to.
        Stray = "stray",
    }

    /// The end of a stream.
    StreamEnd {
        /// The run's last event was sent.
        Finished = "finished",
        /// An error object was sent instead of the last event.
        Error = "error",
        /// The client closed the connection.
        ClientClosed = "client_closed",
        /// This process is stopping; the client resumes elsewhere.
        Drained = "drained",
        /// Text that the client had received was withdrawn, and its protocol cannot express that.
        Withdrawn = "withdrawn",
        /// The run waits for a person, and the protocol cannot express that.
        Parked = "parked",
        /// The credential that opened it is no longer good.
        Revoked = "revoked",
    }

    /// The reason for refusing a credential.
    AuthRefusal {
        Missing = "missing",
        Malformed = "malformed",
        Unknown = "unknown",
        Revoked = "revoked",
        Expired = "expired",
        Scope = "scope",
    }

    /// The result of a program's attempt to connect to the broker.
    Connect {
        Admitted = "admitted",
        Missing = "missing",
        Malformed = "malformed",
        Unknown = "unknown",
        /// The key was revoked or has expired.
        Ended = "ended",
        Scope = "scope",
        RateLimited = "rate_limited",
        /// The key is at its limit of connections.
        TooMany = "too_many",
        /// The ledger is unavailable.
        Unavailable = "unavailable",
        /// The message was not a server's question.
        BadQuestion = "bad_question",
    }

    /// The limit that refused a request.
    RateRefusal {
        Address = "address",
        Caller = "caller",
    }

    /// The bound that refused a body's bytes.
    BodyLimit {
        /// The bound of one key, person or network.
        Owner = "key",
        /// The bound of the process.
        Process = "process",
    }
}
