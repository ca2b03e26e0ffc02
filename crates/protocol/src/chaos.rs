//! Mechanisms that can be switched off, to see that their absence is noticed: in builds for that
//! alone, never in a release.
//!
//! Such a build (feature `chaos`) behaves as any other until `CHAOS_BREAK` names a mechanism.

use std::sync::OnceLock;

#[cfg(not(debug_assertions))]
compile_error!("the feature `chaos` can switch fences off: it is not for releases");

/// Names the mechanism that is switched off.
pub const BREAK: &str = "CHAOS_BREAK";

/// A mechanism that a promise rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// `log-fence`: the event log refuses an append that does not follow its last message.
    LogFence,
    /// `attempt-guard`: the ledger refuses writes of any but the newest attempt.
    AttemptGuard,
    /// `gap-check`: a follower notices that an event before the one it hears is missing.
    GapCheck,
}

impl Mechanism {
    /// Its name in [`BREAK`].
    pub const fn name(self) -> &'static str {
        match self {
            Self::LogFence => "log-fence",
            Self::AttemptGuard => "attempt-guard",
            Self::GapCheck => "gap-check",
        }
    }

    /// Whether it is switched off in this process.
    pub fn is_off(self) -> bool {
        static OFF: OnceLock<String> = OnceLock::new();

        let off = OFF.get_or_init(|| std::env::var(BREAK).unwrap_or_default());
        *off == self.name()
    }
}
