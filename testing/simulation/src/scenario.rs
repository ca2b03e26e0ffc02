//! The scenario of a seed: the number of everything, the clients' actions, and the faults with
//! their times.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use baton_protocol::{EventId, MessageId, RunId};
use baton_store::OnBusy;
use uuid::Uuid;

use crate::accusation::name;
use crate::executor::ProcessId;
use crate::fleet::Fleet;
use crate::ledger::Door;
use crate::links::Service;
use crate::scheduler;
use crate::time::Millis;
use crate::weather::{STORM, Weather};
use crate::worker::Worker;
use crate::world::Sim;

/// The time by which every run must have ended.
const PATIENCE: Millis = STORM + 900_000;
/// The time that the simulation continues after all runs have ended, so that frozen processes
/// return.
const AFTERMATH: Millis = 65_000;
/// The rules for a busy thread.
const RULES: [OnBusy; 5] = [
    OnBusy::Reject,
    OnBusy::Queue,
    OnBusy::Interrupt,
    OnBusy::Rollback,
    OnBusy::Steer,
];

/// Plays the whole scenario.
pub(crate) async fn play(sim: &Sim) {
    let pick = |of: &[u64]| of[usize::try_from(sim.below(of.len() as u64)).unwrap_or(0)];
    let weather = Weather {
        loss: pick(&[0, 10, 40, 80]),
        late: pick(&[0, 10, 40, 80]),
        twice: pick(&[0, 50, 200]),
        deadly: pick(&[0, 2, 8, 20]),
        freezing: pick(&[0, 1, 5, 15]),
    };
    sim.world.borrow_mut().weather = weather;
    // Short enough in some seeds that runs reach their limit.
    sim.world.borrow_mut().log.most = if sim.per_mille(300) { 48 } else { 1_000 };
    sim.world.borrow_mut().ledger.budget = pick(&[u64::MAX, 2_000, 3_000]);
    if sim.per_mille(100) {
        sim.after(sim.below(STORM), |sim| {
            sim.note(|| "the key is revoked".into());
            let now = sim.now();
            sim.world.borrow_mut().ledger.revoked_at = Some(now);
        });
    }
    let count = sim.between(1, 5);
    let has_thread = sim.per_mille(500);
    let follow_ups = if has_thread { sim.below(3) } else { 0 };
    let fleet = Rc::new(Fleet {
        workers: RefCell::default(),
        ingresses: RefCell::default(),
        schedulers: RefCell::default(),
        started: Cell::new(0),
        runs: (1..=count + follow_ups)
            .map(|run| RunId::from_uuid(Uuid::from_u128((1 << 64) + u128::from(run))))
            .collect(),
        declined: RefCell::default(),
    });
    for _ in 0..sim.between(2, 4) {
        let slots = usize::try_from(sim.between(1, 3)).unwrap_or(1);
        let worker = Worker::start(sim, fleet.number(), slots);
        fleet.workers.borrow_mut().push((worker, slots));
    }
    for _ in 0..2 {
        let ingress = sim.start_process(format!("ingress {}", fleet.number()));
        fleet.ingresses.borrow_mut().push(ingress);
    }
    for _ in 0..sim.between(1, 3) {
        let process = scheduler::start(sim, &fleet, fleet.number());
        fleet.schedulers.borrow_mut().push(process);
    }
    let clients = sim.start_process("clients");
    let mut on_thread = Vec::new();
    for (&run, number) in fleet.runs.iter().zip(1..) {
        let door = if number > count && !on_thread.is_empty() {
            Door::FollowUp(on_thread[index_below(sim, on_thread.len())])
        } else if has_thread && (number > count || sim.per_mille(800)) {
            on_thread.push(run);
            Door::OnThread(RULES[index_below(sim, RULES.len())])
        } else {
            Door::Alone
        };
        plan_clients(sim, &fleet, clients, run, door);
    }
    let outside = sim.start_process("supervisor");
    let (handle, all) = (sim.clone(), Rc::clone(&fleet));
    sim.spawn(outside, async move {
        loop {
            let pause = handle.between(500, 3_000);
            handle.sleep(Duration::from_millis(pause)).await;
            revive(&handle, &all);
        }
    });
    for _ in 0..pick(&[0, 4, 12, 25]) {
        let all = Rc::clone(&fleet);
        sim.after(sim.below(STORM), move |sim| strike(sim, &all));
    }
    sim.after(STORM, |sim| {
        sim.note(|| "the storm is over".into());
        sim.world.borrow_mut().weather = Weather::default();
    });
    let all = Rc::clone(&fleet);
    sim.run(PATIENCE, move |sim| {
        sim.now() > STORM && all_done(sim, &all)
    })
    .await;
    let end = sim.now() + AFTERMATH;
    sim.run(end, |_| false).await;
}

/// Replaces each dead process by a new one.
fn revive(sim: &Sim, fleet: &Rc<Fleet>) {
    for (worker, slots) in fleet.workers.borrow_mut().iter_mut() {
        if !sim.is_alive(worker.process) {
            *worker = Worker::start(sim, fleet.number(), *slots);
        }
    }
    for ingress in fleet.ingresses.borrow_mut().iter_mut() {
        if !sim.is_alive(*ingress) {
            *ingress = sim.start_process(format!("ingress {}", fleet.number()));
        }
    }
    for process in fleet.schedulers.borrow_mut().iter_mut() {
        if !sim.is_alive(*process) {
            *process = scheduler::start(sim, fleet, fleet.number());
        }
    }
}

fn all_done(sim: &Sim, fleet: &Fleet) -> bool {
    let world = sim.world.borrow();
    let rows = &world.ledger.rows;
    let declined = fleet.declined.borrow();
    let is_done = |run: &RunId| match rows.get(run) {
        Some(row) => row.status().is_terminal(),
        None => declined.contains(run),
    };
    fleet.runs.iter().all(is_done) && world.views.iter().all(|view| view.is_done())
}

fn index_below(sim: &Sim, length: usize) -> usize {
    usize::try_from(sim.below(length as u64)).unwrap_or(0)
}

fn plan_clients(sim: &Sim, fleet: &Rc<Fleet>, clients: ProcessId, run: RunId, door: Door) {
    let at = match door {
        Door::Alone => sim.below(20_000),
        // While the others of the thread are at work.
        Door::OnThread(_) => sim.below(60_000),
        Door::FollowUp(_) => sim.between(5_000, 80_000),
    };
    let all = Rc::clone(fleet);
    // Followers append an end that they miss, and some runs have none.
    let is_watched = sim.per_mille(700);
    sim.after(at, move |sim| {
        let handle = sim.clone();
        sim.spawn(clients, async move {
            if is_watched && matches!(door, Door::Alone) {
                // A follower may come before the run.
                let watch = handle.clone().watch(Rc::clone(&all), run, EventId::ORIGIN);
                handle.spawn(clients, watch);
            }
            if !handle.clone().submit(Rc::clone(&all), run, door).await {
                return;
            }
            handle.spawn(clients, handle.clone().decide(Rc::clone(&all), run));
            if is_watched && !matches!(door, Door::Alone) {
                handle.spawn(clients, handle.clone().watch(all, run, EventId::ORIGIN));
            }
        });
    });
    for _ in 0..sim.below(3) {
        let all = Rc::clone(fleet);
        sim.after(at + sim.between(500, 50_000), move |sim| {
            if !matches!(door, Door::Alone) && !sim.world.borrow().ledger.rows.contains_key(&run) {
                return;
            }
            let start = any_seen_event(sim, run);
            sim.spawn(clients, sim.clone().watch(all, run, start));
        });
    }
    if sim.per_mille(250) {
        let all = Rc::clone(fleet);
        sim.after(at + sim.below(40_000), move |sim| {
            sim.spawn(clients, sim.clone().cancel(all, run));
        });
    }
    let messages = if sim.per_mille(400) { sim.below(5) } else { 0 };
    for number in 0..messages {
        let all = Rc::clone(fleet);
        let id = MessageId::from_uuid(Uuid::from_u128(
            run.as_uuid().as_u128() << 8 | u128::from(number),
        ));
        sim.after(at + sim.below(40_000), move |sim| {
            sim.spawn(clients, sim.clone().steer(all, run, id));
        });
    }
}

/// Returns an id that some client has seen, or none.
fn any_seen_event(sim: &Sim, run: RunId) -> EventId {
    let seen: Vec<EventId> = {
        let world = sim.world.borrow();
        let views = world.views.iter().filter(|view| view.run == run);
        views
            .flat_map(|view| {
                view.events
                    .borrow()
                    .iter()
                    .map(|event| event.id)
                    .collect::<Vec<_>>()
            })
            .collect()
    };
    let at = usize::try_from(sim.below(seen.len() as u64 + 1)).unwrap_or(0);
    seen.get(at).copied().unwrap_or(EventId::ORIGIN)
}

/// Causes one fault.
fn strike(sim: &Sim, fleet: &Rc<Fleet>) {
    let worker = fleet.any_worker(sim);
    match sim.below(17) {
        0..=2 => {
            sim.count(|counts| &mut counts.crashes);
            sim.kill(worker.process);
        }
        3..=5 => {
            sim.count(|counts| &mut counts.freezes);
            sim.freeze(worker.process, sim.between(1_000, 60_000));
        }
        6 | 12 | 13 => {
            sim.count(|counts| &mut counts.stops);
            worker.stop();
        }
        7 | 8 => cut(sim, worker.process),
        14 | 15 => {
            let until = sim.now() + sim.between(1_000, 30_000);
            sim.count(|counts| &mut counts.unseen);
            sim.tell(worker.process, || "is not seen by the broker".into());
            sim.with_process(worker.process, |process| process.unseen_until = until);
            match sim.below(4) {
                0 => sim.freeze(worker.process, sim.between(1_000, 30_000)),
                1 => cut(sim, worker.process),
                _ => {}
            }
        }
        16 => {
            let until = sim.now() + sim.between(1_000, 15_000);
            sim.note(|| format!("the broker refuses events until {until}"));
            sim.world.borrow_mut().refuses_until = until;
        }
        9 => {
            let ingress = fleet.any_ingress(sim);
            sim.count(|counts| &mut counts.crashes);
            sim.kill(ingress);
        }
        10 => {
            let process = fleet.schedulers.borrow()[0];
            sim.count(|counts| &mut counts.crashes);
            sim.kill(process);
        }
        _ => {
            sim.note(|| "the broker has lost its jobs".into());
            sim.count(|counts| &mut counts.wiped_jobs);
            sim.world.borrow_mut().jobs.wipe();
            if let Some(run) = fleet.runs.first() {
                // A stray job that no run needs.
                let run = *run;
                sim.note(|| format!("a stray job for {}", name(run)));
                sim.store_job(run);
            }
        }
    }
}

/// Cuts a connection, sometimes in one direction only.
fn cut(sim: &Sim, process: ProcessId) {
    let service = if sim.per_mille(500) {
        Service::Broker
    } else {
        Service::Ledger
    };
    let until = sim.now() + sim.between(1_000, 40_000);
    let (there, back) = match sim.below(3) {
        0 => (until, 0),
        1 => (0, until),
        _ => (until, until),
    };
    sim.count(|counts| &mut counts.partitions);
    sim.tell(process, || {
        format!("is cut off from the {service:?} ({there}, {back})")
    });
    sim.with_process(process, |process| {
        process.hampered_until = process.hampered_until.max(until);
        if let Some(link) = process.links.of(service) {
            *link = (link.0.max(there), link.1.max(back));
        }
    });
}
