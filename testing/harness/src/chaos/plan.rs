//! The schedule of faults, decided by the seed alone.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::outside::Ailment;
use super::proxy::{Matching, Mode};

/// The number of workers.
pub const WORKERS: usize = 3;
/// The number of ingresses.
pub const INGRESSES: usize = 2;

/// A role, by its number among those of its kind.
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

/// A change of the broker's disk while the broker is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disk {
    /// It is unchanged.
    Kept,
    /// It is unchanged, and a copy is made.
    Copied,
    /// It is restored to the last copy, as if later writes had never reached it; unchanged without
    /// a copy.
    Restored,
    /// It is lost.
    Wiped,
}

/// Something to break.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL.
    Kill(Target),
    /// SIGTERM.
    Terminate(Target),
    /// SIGTERM, and once more after this time: the second signal ends the process at once.
    TerminateTwice(Target, Duration),
    /// SIGSTOP, and SIGCONT after this time.
    Freeze(Target, Duration),
    /// The connection of a role to a server is disturbed for this time.
    Link(Target, Server, Mode, Duration),
    /// NATS is killed, and restarted after this time.
    BrokerCrash(Disk, Duration),
    /// PostgreSQL is stopped at once (`-m immediate`), and restarted after this time.
    DatabaseCrash(Duration),
    /// The connections of all workers to the upstream are disturbed for this time.
    Upstream(Mode, Duration),
    /// Many of the model's answers fail in this way for this time.
    Model(Ailment, Duration),
    /// SIGSTOP to a server and its processes, and SIGCONT after this time.
    FreezeServer(Server, Duration),
    /// All workers are frozen for this time.
    FreezeWorkers(Duration),
    /// A role can open no more files for this time.
    Files(Target, Duration),
    /// PostgreSQL has no free connection for this time, and roles lose some of theirs.
    Places(Duration),
    /// A role reads nothing from NATS for this time, while more is sent than NATS buffers for it.
    SlowConsumer(Target, Duration),
    /// The ledger receives a worker's statements and answers late by this time; soon NATS is out of
    /// reach too.
    Unseen(Target, Duration),
}

impl Fault {
    /// Returns the kind of fault, for counting.
    pub fn kind(&self) -> String {
        let role = |target: &Target| match target {
            Target::Worker(_) => "worker",
            Target::Ingress(_) => "ingress",
            Target::Scheduler => "scheduler",
        };
        match self {
            Self::Kill(target) => format!("{} kill", role(target)),
            Self::Terminate(target) => format!("{} term", role(target)),
            Self::TerminateTwice(target, _) => format!("{} term twice", role(target)),
            Self::Freeze(target, _) => format!("{} freeze", role(target)),
            Self::Link(target, Server::Broker, mode, _) => {
                format!("{}-nats {}", role(target), mode_name(*mode))
            }
            Self::Link(target, Server::Database, mode, _) => {
                format!("{}-postgres {}", role(target), mode_name(*mode))
            }
            Self::BrokerCrash(Disk::Kept, _) => "nats crash".to_owned(),
            Self::BrokerCrash(Disk::Copied, _) => "nats crash, disk copied".to_owned(),
            Self::BrokerCrash(Disk::Restored, _) => "nats with an older disk".to_owned(),
            Self::BrokerCrash(Disk::Wiped, _) => "nats wiped".to_owned(),
            Self::DatabaseCrash(_) => "postgres crash".to_owned(),
            Self::Upstream(mode, _) => format!("upstream {}", mode_name(*mode)),
            Self::Unseen(target, _) => format!("{} unseen", role(target)),
            Self::Model(ailment, _) => format!("model {}", ailment.name()),
            Self::FreezeServer(Server::Broker, _) => "nats freeze".to_owned(),
            Self::FreezeServer(Server::Database, _) => "postgres freeze".to_owned(),
            Self::FreezeWorkers(_) => "all workers freeze".to_owned(),
            Self::Files(target, _) => format!("{} without files", role(target)),
            Self::Places(_) => "postgres without places".to_owned(),
            Self::SlowConsumer(target, _) => format!("{} a slow consumer", role(target)),
        }
    }
}

const fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Pass => "pass",
        Mode::Cut => "cut",
        Mode::Stall => "stall",
        Mode::StallToServer => "late requests",
        Mode::StallToClient => "late answers",
        Mode::Delay(_) => "delay",
        Mode::DropToServer => "deaf",
        Mode::DropToClient => "mute",
        Mode::CutAfter(_) => "cut after bytes",
        Mode::Orphan(_, Matching::Any) => "late repeats",
        Mode::Orphan(_, Matching::With(_)) => "late repeats of steps",
    }
}

/// The emphasis of the faults.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Emphasis {
    /// Everything equally.
    #[default]
    Everything,
    /// Workers are cut off or frozen for longer than their lease, which tests fences.
    Zombies,
    /// Workers' writes to the ledger arrive after their lease, which tests the attempt guard.
    LateCommits,
    /// Connections to the servers are disturbed, which causes repetitions and gaps.
    Links,
    /// Ingresses lose their connection to NATS for a moment, so that followers miss events.
    Followers,
    /// Workers are killed and brokers lose their disks, which tests the sweep.
    Deaths,
    /// The ledger answers workers late while nobody sees them, which tests the look at the last
    /// confirmation.
    Unseen,
    /// Statements of workers arrive again after their repetition was answered.
    LateRepeats,
}

/// The kinds of faults without which a long run proves nothing.
pub const REQUIRED: [&str; 15] = [
    "all workers freeze",
    "ingress a slow consumer",
    "ingress kill",
    "ingress without files",
    "model 429",
    "model 503",
    "model bad JSON",
    "model error in a stream",
    "nats freeze",
    "nats wiped",
    "postgres crash",
    "postgres freeze",
    "postgres without places",
    "worker kill",
    "worker without files",
];

/// Matches statements with a message that asks for tools.
const CALLS: Matching = Matching::With("\"tool_calls\"");

/// The schedule: an endless sequence of pauses and faults.
#[derive(Debug)]
pub struct Plan {
    random: StdRng,
    lease: Duration,
    /// The average pause.
    pause: Duration,
    emphasis: Emphasis,
}

impl Plan {
    /// Makes the schedule of a seed. Some disturbances are longer than `lease`.
    pub fn new(seed: u64, lease: Duration, pause: Duration, emphasis: Emphasis) -> Self {
        Self {
            random: StdRng::seed_from_u64(seed),
            lease,
            pause,
            emphasis,
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

    fn beyond_lease(&mut self) -> Duration {
        self.lease + self.millis(300, 2_500)
    }

    fn role(&mut self) -> Target {
        match self.random.random_range(0..10) {
            0..6 => self.worker(),
            6..9 => self.ingress(),
            _ => Target::Scheduler,
        }
    }

    fn server(&mut self) -> Server {
        if self.random.random_bool(0.5) {
            Server::Broker
        } else {
            Server::Database
        }
    }

    fn link(&mut self) -> Fault {
        let target = self.role();
        let server = self.server();
        let (mode, time) = match self.random.random_range(0..22) {
            0..4 => (Mode::Cut, self.millis(100, 3_000)),
            4..6 => {
                let bytes = self.random.random_range(1..20_000);
                (Mode::CutAfter(bytes), self.millis(300, 2_000))
            }
            6..9 => (Mode::Stall, self.millis(300, 5_000)),
            9..11 => (Mode::StallToServer, self.millis(300, 5_000)),
            11..13 => (Mode::StallToClient, self.millis(300, 5_000)),
            13..16 => (Mode::DropToServer, self.millis(300, 4_000)),
            16..18 => (Mode::DropToClient, self.millis(300, 4_000)),
            18..20 => (Mode::Delay(self.millis(5, 50)), self.millis(1_000, 4_000)),
            _ => (
                Mode::Orphan(self.millis(200, 2_500), Matching::Any),
                self.millis(300, 1_000),
            ),
        };
        Fault::Link(target, server, mode, time)
    }

    fn upstream(&mut self) -> Fault {
        let mode = match self.random.random_range(0..10) {
            0..4 => Mode::Cut,
            4..6 => Mode::CutAfter(self.random.random_range(1..10_000)),
            6..9 => Mode::Stall,
            _ => Mode::StallToClient,
        };
        Fault::Upstream(mode, self.millis(50, 1_500))
    }

    fn disk(&mut self) -> Disk {
        match self.random.random_range(0..10) {
            0..5 => Disk::Kept,
            5..8 => Disk::Copied,
            8..9 => Disk::Restored,
            _ => Disk::Wiped,
        }
    }

    fn anything(&mut self) -> Fault {
        match self.random.random_range(0..124) {
            0..16 => Fault::Kill(self.worker()),
            16..26 => Fault::Terminate(self.worker()),
            26..29 => {
                let target = self.role();
                Fault::TerminateTwice(target, self.millis(0, 1_500))
            }
            29..36 => Fault::Freeze(self.worker(), self.beyond_lease()),
            36..38 => Fault::Freeze(self.ingress(), self.millis(300, 4_000)),
            38..45 => Fault::Kill(self.ingress()),
            45..51 => Fault::Terminate(self.ingress()),
            51..55 => Fault::Kill(Target::Scheduler),
            55..61 => Fault::BrokerCrash(self.disk(), self.millis(0, 1_000)),
            61..65 => Fault::DatabaseCrash(self.millis(0, 1_000)),
            65..71 => self.upstream(),
            71..73 => self.unseen(),
            73..100 => self.link(),
            100..108 => {
                let ailment = Ailment::ALL[self.random.random_range(0..Ailment::ALL.len())];
                Fault::Model(ailment, self.millis(500, 3_000))
            }
            108..110 => Fault::FreezeServer(Server::Broker, self.millis(300, 2_500)),
            110..112 => Fault::FreezeServer(Server::Database, self.millis(300, 2_500)),
            112..114 => Fault::FreezeWorkers(self.beyond_lease()),
            114..119 => {
                let target = self.role();
                Fault::Files(target, self.millis(1_000, 4_000))
            }
            119..122 => Fault::Places(self.millis(500, 3_000)),
            _ => Fault::SlowConsumer(self.ingress(), self.millis(1_500, 4_000)),
        }
    }

    fn unseen(&mut self) -> Fault {
        // A run that is taken early is at work elsewhere after about five seconds.
        Fault::Unseen(self.worker(), self.millis(6_000, 10_000))
    }

    /// Delays the statements of a worker that record a turn with calls, beyond the recording of these
    /// calls.
    fn late_repeats(&mut self) -> Fault {
        let (late, time) = (self.millis(400, 900), self.millis(600, 1_200));
        let mode = Mode::Orphan(late, CALLS);
        Fault::Link(self.worker(), Server::Database, mode, time)
    }

    fn zombie(&mut self) -> Fault {
        let (worker, time) = (self.worker(), self.beyond_lease());
        match self.random.random_range(0..10) {
            0..4 => Fault::Freeze(worker, time),
            4..7 => Fault::Link(worker, Server::Broker, Mode::StallToServer, time),
            _ => Fault::Link(worker, Server::Database, Mode::StallToServer, time),
        }
    }
}

impl Iterator for Plan {
    /// A pause, and the fault after it.
    type Item = (Duration, Fault);

    fn next(&mut self) -> Option<Self::Item> {
        let pause = self.pause.mul_f64(self.random.random_range(0.5..1.5));
        let often = self.random.random_bool(0.75);
        let fault = match self.emphasis {
            Emphasis::Zombies if often => self.zombie(),
            Emphasis::LateCommits if often => {
                let (worker, time) = (self.worker(), self.beyond_lease());
                Fault::Link(worker, Server::Database, Mode::StallToServer, time)
            }
            Emphasis::Links if often => self.link(),
            Emphasis::Followers if often => {
                let (ingress, time) = (self.ingress(), self.millis(50, 400));
                Fault::Link(ingress, Server::Broker, Mode::Cut, time)
            }
            Emphasis::Deaths if often => match self.random.random_range(0..4) {
                0..3 => Fault::Kill(self.worker()),
                _ => Fault::BrokerCrash(Disk::Wiped, self.millis(0, 500)),
            },
            Emphasis::Unseen if often => self.unseen(),
            Emphasis::LateRepeats if often => self.late_repeats(),
            _ => self.anything(),
        };
        Some((pause, fault))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const LEASE: Duration = Duration::from_secs(3);

    fn take(seed: u64, emphasis: Emphasis) -> Vec<(Duration, Fault)> {
        let plan = Plan::new(seed, LEASE, Duration::from_millis(650), emphasis);
        plan.take(1_000).collect()
    }

    #[test]
    fn a_seed_is_a_schedule_and_every_kind_of_fault_occurs() {
        let all = take(4, Emphasis::Everything);
        assert_eq!(all, take(4, Emphasis::Everything));
        assert_ne!(all, take(5, Emphasis::Everything));
        let kinds: BTreeSet<_> = all.iter().map(|(_, fault)| fault.kind()).collect();
        for kind in [
            "worker kill",
            "worker term",
            "worker term twice",
            "worker freeze",
            "ingress kill",
            "ingress freeze",
            "scheduler kill",
            "nats crash",
            "nats crash, disk copied",
            "nats with an older disk",
            "nats wiped",
            "postgres crash",
            "worker-nats stall",
            "worker-nats late requests",
            "worker-nats late answers",
            "worker-nats deaf",
            "worker-postgres cut",
            "worker-postgres cut after bytes",
            "worker-postgres late repeats",
            "worker unseen",
            "model 429",
            "model bad JSON",
            "nats freeze",
            "postgres freeze",
            "all workers freeze",
            "worker without files",
            "ingress without files",
            "postgres without places",
            "ingress a slow consumer",
            "ingress-nats mute",
            "upstream cut",
        ] {
            assert!(kinds.contains(kind), "{kind} is not among {kinds:?}");
        }
    }

    #[test]
    fn an_emphasis_is_what_is_broken_most() {
        let faults = take(4, Emphasis::Zombies);
        let zombies = faults.iter().filter(|(_, fault)| match fault {
            Fault::Freeze(Target::Worker(_), time)
            | Fault::Link(Target::Worker(_), _, Mode::StallToServer, time) => *time > LEASE,
            _ => false,
        });
        assert!(zombies.count() > faults.len() * 7 / 10);
    }
}
