//! Which fault comes when: decided by the seed alone.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::proxy::Mode;

/// How many of each role there are.
pub const WORKERS: usize = 3;
/// See [`WORKERS`].
pub const INGRESSES: usize = 2;

/// A role, by its place among those of its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The n-th worker.
    Worker(usize),
    /// The n-th ingress.
    Ingress(usize),
    /// The scheduler.
    Scheduler,
}

/// A server that roles connect to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// NATS.
    Broker,
    /// PostgreSQL.
    Database,
}

/// Something to break.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL.
    Kill(Target),
    /// SIGTERM.
    Terminate(Target),
    /// SIGSTOP, and SIGCONT after this time.
    Freeze(Target, Duration),
    /// The way between a role and a server is disturbed for this time.
    Link(Target, Server, Mode, Duration),
    /// NATS is killed, and comes back after this time.
    BrokerCrash(Duration),
    /// PostgreSQL is stopped at once, and comes back after this time.
    DatabaseCrash(Duration),
    /// The way between all workers and the upstream is disturbed for this time.
    Upstream(Mode, Duration),
}

impl Fault {
    /// What kind of fault it is, for counting.
    pub fn kind(&self) -> String {
        let role = |target: &Target| match target {
            Target::Worker(_) => "worker",
            Target::Ingress(_) => "ingress",
            Target::Scheduler => "scheduler",
        };
        match self {
            Self::Kill(target) => format!("{} kill", role(target)),
            Self::Terminate(target) => format!("{} term", role(target)),
            Self::Freeze(target, _) => format!("{} freeze", role(target)),
            Self::Link(target, Server::Broker, mode, _) => {
                format!("{}-nats {}", role(target), mode_name(*mode))
            }
            Self::Link(target, Server::Database, mode, _) => {
                format!("{}-postgres {}", role(target), mode_name(*mode))
            }
            Self::BrokerCrash(_) => "nats crash".to_owned(),
            Self::DatabaseCrash(_) => "postgres crash".to_owned(),
            Self::Upstream(mode, _) => format!("upstream {}", mode_name(*mode)),
        }
    }
}

const fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Pass => "pass",
        Mode::Cut => "cut",
        Mode::Stall => "stall",
        Mode::Delay(_) => "delay",
        Mode::DropToServer => "deaf",
        Mode::DropToClient => "mute",
    }
}

/// The schedule: an endless sequence of pauses and faults.
#[derive(Debug)]
pub struct Plan {
    random: StdRng,
    lease: Duration,
}

impl Plan {
    /// The schedule of a seed. Some pauses are longer than `lease`.
    pub fn new(seed: u64, lease: Duration) -> Self {
        Self {
            random: StdRng::seed_from_u64(seed),
            lease,
        }
    }

    fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.random.random_range(from..to))
    }

    fn worker(&mut self) -> Target {
        Target::Worker(self.random.random_range(0..WORKERS))
    }

    fn ingress(&mut self) -> Target {
        Target::Ingress(self.random.random_range(0..INGRESSES))
    }

    fn link(&mut self) -> Fault {
        let target = match self.random.random_range(0..10) {
            0..7 => self.worker(),
            7..9 => self.ingress(),
            _ => Target::Scheduler,
        };
        let server = if self.random.random_bool(0.5) {
            Server::Broker
        } else {
            Server::Database
        };
        let (mode, time) = match self.random.random_range(0..10) {
            0..3 => (Mode::Cut, self.millis(100, 3_000)),
            3..6 => (Mode::Stall, self.millis(300, 5_000)),
            6..8 => (Mode::DropToServer, self.millis(300, 4_000)),
            8 => (Mode::DropToClient, self.millis(300, 4_000)),
            _ => (Mode::Delay(self.millis(5, 50)), self.millis(1_000, 4_000)),
        };
        Fault::Link(target, server, mode, time)
    }
}

impl Iterator for Plan {
    /// How long to wait, and what to break then.
    type Item = (Duration, Fault);

    fn next(&mut self) -> Option<Self::Item> {
        let pause = self.millis(300, 1_000);
        let fault = match self.random.random_range(0..100) {
            0..18 => Fault::Kill(self.worker()),
            18..32 => Fault::Terminate(self.worker()),
            32..40 => {
                let beyond = self.millis(300, 2_500);
                Fault::Freeze(self.worker(), self.lease + beyond)
            }
            40..48 => Fault::Kill(self.ingress()),
            48..54 => Fault::Terminate(self.ingress()),
            54..59 => Fault::Kill(Target::Scheduler),
            59..63 => Fault::BrokerCrash(self.millis(0, 1_000)),
            63..67 => Fault::DatabaseCrash(self.millis(0, 1_000)),
            67..72 => {
                let mode = if self.random.random_bool(0.6) {
                    Mode::Cut
                } else {
                    Mode::Stall
                };
                Fault::Upstream(mode, self.millis(50, 1_500))
            }
            _ => self.link(),
        };
        Some((pause, fault))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_seed_is_a_schedule_and_every_kind_of_fault_occurs() {
        let lease = Duration::from_secs(3);
        let take = |seed| Plan::new(seed, lease).take(500).collect::<Vec<_>>();
        assert_eq!(take(4), take(4));
        assert_ne!(take(4), take(5));
        let kinds: BTreeSet<_> = take(4).iter().map(|(_, fault)| fault.kind()).collect();
        for kind in [
            "worker kill",
            "worker term",
            "worker freeze",
            "ingress kill",
            "scheduler kill",
            "nats crash",
            "postgres crash",
            "worker-nats stall",
            "worker-postgres cut",
            "worker-nats deaf",
            "upstream cut",
        ] {
            assert!(kinds.contains(kind), "{kind} is not among {kinds:?}");
        }
    }
}
