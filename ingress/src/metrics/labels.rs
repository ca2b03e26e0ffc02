//! The values of labels: each a closed set, so that every series exists from the start.

macro_rules! labels {
    ($($(#[$doc:meta])* $name:ident { $($(#[$what:meta])* $value:ident = $word:literal,)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum $name {
            $($(#[$what])* $value,)*
        }

        impl $name {
            /// The names of all of them.
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
    /// The route that a stream speaks for.
    Wire {
        Chat = "chat",
        Native = "native",
    }

    /// Which way a run came in.
    Door {
        Chat = "chat",
        Runs = "runs",
        Bus = "bus",
    }

    /// What became of a message that a program submitted.
    SubmissionEnd {
        /// It is a run, now or before.
        Accepted = "accepted",
        /// It was refused, and told so.
        Refused = "refused",
        /// As refused, and a copy is kept for an operator.
        Quarantined = "quarantined",
        /// As quarantined, but its publisher has had enough copies kept, or it could not be kept.
        Dropped = "dropped",
        /// There was no room for it at this moment.
        Busy = "busy",
    }

    /// Why a program's message was dropped before anybody read it.
    Dropped {
        /// There was no room for it: too many wait, of all keys or of its own.
        Full = "full",
        /// It is larger than what is taken over the bus.
        TooLarge = "too_large",
        /// Its subject is of no form that an ingress subscribes to.
        Stray = "stray",
    }

    /// How a stream ended.
    StreamEnd {
        /// With the run's last event.
        Finished = "finished",
        /// With an error object in its place.
        Error = "error",
        /// The client went away.
        ClientClosed = "client_closed",
        /// This process is stopping; the client resumes elsewhere.
        Drained = "drained",
        /// Text that the client had seen was withdrawn, and its wire cannot say so.
        Withdrawn = "withdrawn",
        /// The run waits for a person, and the wire cannot say so.
        Parked = "parked",
        /// The credential that opened it is not good any more.
        Revoked = "revoked",
    }

    /// Why a credential was refused.
    AuthRefusal {
        Missing = "missing",
        Malformed = "malformed",
        Unknown = "unknown",
        Revoked = "revoked",
        Expired = "expired",
        Scope = "scope",
    }

    /// What came of somebody's wish to connect to the broker.
    Connect {
        Admitted = "admitted",
        Missing = "missing",
        Malformed = "malformed",
        Unknown = "unknown",
        /// Revoked or expired.
        Ended = "ended",
        Scope = "scope",
        RateLimited = "rate_limited",
        /// The key has as many connections as it may.
        TooMany = "too_many",
        /// The ledger is away.
        Unavailable = "unavailable",
        /// What was asked was no question of a server's.
        BadQuestion = "bad_question",
    }

    /// Whose limit refused a request.
    RateRefusal {
        Address = "address",
        Caller = "caller",
    }

    /// The bound on bytes of bodies that refuses one.
    BodyLimit {
        /// Of one key, person or network.
        Owner = "key",
        /// Of the process.
        Process = "process",
    }
}
