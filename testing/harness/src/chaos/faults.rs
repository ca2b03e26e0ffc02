//! Breaks things by the plan, and mends them when their time is over.

use std::sync::Arc;
use std::time::Duration;

use baton_devstack::{NatsServer, Postgres};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::Instant;

use super::broker_disk::BrokerDisk;
use super::fleet::Fleet;
use super::harvest::Harvest;
use super::outside::Outside;
use super::plan::{Disk, Fault, Plan, Server, Target, WORKERS};
use super::proxy::{Mode, Proxy};
use super::record::Recorder;
use super::shortage::Shortage;
use crate::checker::What;
use crate::process_usage;

/// The time for which a worker still reaches NATS after its ledger has gone silent.
const STORED_BY: Duration = Duration::from_millis(400);

/// Everything that can be broken.
#[derive(Debug)]
pub struct Faults {
    /// NATS.
    pub broker: NatsServer,
    /// Reads the events that are about to be lost.
    pub harvest: Harvest,
    /// NATS's disk.
    pub disk: BrokerDisk,
    /// PostgreSQL.
    pub database: Postgres,
    /// The proxy in front of the upstream.
    pub upstream: Proxy,
    /// The upstream.
    pub outside: Outside,
    /// Takes files, connections and slow reads away from roles and servers.
    pub shortage: Shortage,
    /// The roles.
    pub fleet: Fleet,
    /// The recorder of faults.
    pub recorder: Arc<Recorder>,
    /// The mends with their times.
    pub(super) due: Vec<(Instant, Mend)>,
}

/// The way of mending something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mend {
    Thaw(Target, u32),
    /// Not a mend, but the second signal to a process.
    TerminateAgain(Target, u32),
    Link(Target, Server),
    /// Not a mend, but the next fault of a worker without a ledger.
    CutOff(Target),
    Upstream,
    Model,
    ThawServer(Server),
    Files(Target, u32),
    Places,
}

impl Faults {
    /// Breaks things for this long, then mends everything.
    pub async fn rage(&mut self, plan: Plan, time: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + time;
        for (pause, fault) in plan {
            let at = Instant::now() + pause;
            self.mend_until(at.min(end)).await;
            if at >= end {
                break;
            }
            self.apply(fault).await?;
        }
        self.shortage.slow_down.cancel();
        for (_, mend) in std::mem::take(&mut self.due) {
            self.mend(mend);
        }
        self.fleet.heal();
        self.upstream.set(Mode::Pass);
        Ok(())
    }

    async fn mend_until(&mut self, until: Instant) {
        while let Some(at) = self
            .due
            .iter()
            .map(|(at, _)| *at)
            .min()
            .filter(|at| *at <= until)
        {
            tokio::time::sleep_until(at).await;
            let due = self.due.extract_if(.., |(other, _)| *other <= at);
            let due: Vec<_> = due.collect();
            for (_, mend) in due {
                self.mend(mend);
            }
        }
        tokio::time::sleep_until(until).await;
    }

    fn mend(&mut self, mend: Mend) {
        match mend {
            Mend::Model => self.outside.set(None),
            Mend::ThawServer(server) => self.signal_server(server, Signal::SIGCONT),
            Mend::Files(target, pid) => {
                if self.fleet.is_process_of(target, pid) {
                    self.shortage.give_files_back(pid);
                }
            }
            Mend::Places => self.shortage.give_places_back(),
            Mend::Thaw(target, pid) => self.fleet.signal_same(target, pid, Signal::SIGCONT),
            Mend::TerminateAgain(target, pid) => {
                self.fleet.signal_same(target, pid, Signal::SIGTERM);
            }
            Mend::Link(target, server) => self.fleet.link(target, server, Mode::Pass),
            Mend::CutOff(target) => self.fleet.link(target, Server::Broker, Mode::Cut),
            Mend::Upstream => self.upstream.set(Mode::Pass),
        }
    }

    fn signal_server(&self, server: Server, signal: Signal) {
        let pid = match server {
            Server::Broker => self.broker.pid(),
            Server::Database => self.database.pid(),
        };
        for pid in process_usage::family(pid) {
            // A process that has ended meanwhile needs no signal.
            let _gone = i32::try_from(pid).map(|pid| kill(Pid::from_raw(pid), signal));
        }
    }

    /// Schedules a mend. An earlier mend of the same thing is put off until then.
    fn later(&mut self, after: Duration, mend: Mend) {
        self.due.retain(|(_, other)| *other != mend);
        self.due.push((Instant::now() + after, mend));
    }

    async fn apply(&mut self, fault: Fault) -> anyhow::Result<()> {
        let fault = match fault {
            Fault::BrokerCrash(disk, down) => Fault::BrokerCrash(self.disk.possible(disk), down),
            fault => fault,
        };
        if let Fault::BrokerCrash(Disk::Restored | Disk::Wiped, _) = fault {
            self.harvest.take().await;
        }
        let fired = match fault {
            Fault::Kill(target) => self.fleet.signal(target, Signal::SIGKILL).is_some(),
            Fault::Terminate(target) => self.fleet.signal(target, Signal::SIGTERM).is_some(),
            Fault::TerminateTwice(target, gap) => {
                let pid = self.fleet.signal(target, Signal::SIGTERM);
                pid.inspect(|pid| self.later(gap, Mend::TerminateAgain(target, *pid)))
                    .is_some()
            }
            Fault::Freeze(target, time) => {
                let pid = self.fleet.signal(target, Signal::SIGSTOP);
                pid.inspect(|pid| self.later(time, Mend::Thaw(target, *pid)))
                    .is_some()
            }
            Fault::Link(target, server, mode, time) => {
                self.fleet.link(target, server, mode);
                self.later(time, Mend::Link(target, server));
                true
            }
            Fault::Upstream(mode, time) => {
                self.upstream.set(mode);
                self.later(time, Mend::Upstream);
                true
            }
            Fault::Model(ailment, time) => {
                self.outside.set(Some(ailment));
                self.later(time, Mend::Model);
                true
            }
            Fault::FreezeServer(server, time) => {
                self.signal_server(server, Signal::SIGSTOP);
                self.later(time, Mend::ThawServer(server));
                true
            }
            Fault::FreezeWorkers(time) => {
                let frozen: Vec<_> = (0..WORKERS)
                    .map(Target::Worker)
                    .filter_map(|worker| {
                        Some((worker, self.fleet.signal(worker, Signal::SIGSTOP)?))
                    })
                    .collect();
                for (worker, pid) in &frozen {
                    self.later(time, Mend::Thaw(*worker, *pid));
                }
                frozen.len() == WORKERS
            }
            Fault::Files(target, time) => {
                let pid = self.fleet.process_of(target);
                let pid = pid.filter(|pid| self.shortage.take_files(*pid));
                pid.inspect(|pid| self.later(time, Mend::Files(target, *pid)))
                    .is_some()
            }
            Fault::Places(time) => {
                self.later(time, Mend::Places);
                self.shortage.take_places().await
            }
            Fault::SlowConsumer(target, time) => {
                self.fleet.link(target, Server::Broker, Mode::StallToClient);
                self.later(time, Mend::Link(target, Server::Broker));
                self.shortage.overwhelm();
                true
            }
            Fault::Unseen(target, time) => {
                self.fleet
                    .link(target, Server::Database, Mode::StallToClient);
                // Late enough for the shown events of a step to be stored.
                self.later(STORED_BY, Mend::CutOff(target));
                self.later(time, Mend::Link(target, Server::Broker));
                self.later(time, Mend::Link(target, Server::Database));
                true
            }
            Fault::BrokerCrash(..) | Fault::DatabaseCrash(_) => true,
        };
        // A role that is being restarted at the moment cannot be hit.
        if fired {
            self.recorder.note(What::Fault {
                kind: fault.kind(),
                target: format!("{fault:?}"),
            });
        }
        // A stopped server does not act on the signal that ends it.
        match fault {
            Fault::BrokerCrash(..) => self.signal_server(Server::Broker, Signal::SIGCONT),
            Fault::DatabaseCrash(_) => self.signal_server(Server::Database, Signal::SIGCONT),
            _ => {}
        }
        match fault {
            Fault::BrokerCrash(disk, down) => {
                self.broker.kill().await;
                let lost_since = self.disk.change(&self.broker, disk)?;
                self.mend_until(Instant::now() + down).await;
                self.broker.restart().await?;
                if let Some(since) = lost_since {
                    self.recorder.note(What::LogLost { since });
                }
            }
            Fault::DatabaseCrash(down) => {
                self.database.kill_immediate().await;
                self.mend_until(Instant::now() + down).await;
                self.database.restart().await?;
            }
            _ => {}
        }
        Ok(())
    }
}
