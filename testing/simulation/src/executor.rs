//! The processes, which run in tokio's paused time: single-threaded and deterministic.
//!
//! Time passes only while no task can go on, and then it jumps to the next timer of any of them, so the
//! product's own timers count as well. Tasks are polled in the order in which they were woken, and a
//! `select!` of theirs must be `biased`.
//!
//! A task is a future of one process. A process can be frozen (its tasks are not polled; its timers
//! and answers accumulate) and killed (its tasks are dropped between two polls). Messages that it
//! sent before are delivered all the same.
//!
//! The world `W` outlives the processes; this module does not know its content.

mod due;
mod wake;

use std::cell::{Cell, RefCell};
use std::collections::{BinaryHeap, VecDeque};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::task::unconstrained;
use tokio::time;

use self::due::{Due, Sleep, Then};
use self::wake::{Ready, TaskWaker, lock};
use crate::counts::Counts;
use crate::guard::Setup;
use crate::links::Links;
use crate::time::{Millis, date, millis};

/// One process of any role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ProcessId(usize);

/// The state of a process.
pub(crate) struct Process {
    pub(crate) name: String,
    pub(crate) alive: bool,
    pub(crate) links: Links,
    /// The time until which it was last hampered: frozen, cut off, or dead.
    pub(crate) hampered_until: Millis,
    /// The time until which a message to the ledger, or its answer, was late or lost.
    pub(crate) unheard_until: Millis,
    /// The time until which the broker wrongly reports it as gone.
    pub(crate) unseen_until: Millis,
    frozen: bool,
    /// Tasks that were woken during the freeze.
    woken: Vec<usize>,
}

type Work = Pin<Box<dyn Future<Output = ()>>>;

struct Task {
    process: ProcessId,
    work: Option<Work>,
    waker: Arc<TaskWaker>,
}

type SentAction<W> = Box<dyn FnOnce(&Executor<W>) + Send>;

/// Actions of code that another thread might run, so that it cannot hold the simulation itself.
pub(crate) struct Inbox<W>(Arc<Mutex<VecDeque<SentAction<W>>>>);

impl<W> fmt::Debug for Inbox<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox").finish_non_exhaustive()
    }
}

impl<W> Clone for Inbox<W> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<W> Inbox<W> {
    /// Has an action run once the task at work waits.
    pub(crate) fn put(&self, action: impl FnOnce(&Executor<W>) + Send + 'static) {
        lock(&self.0).push_back(Box::new(action));
    }
}

/// A handle on the time, the processes and their world.
pub(crate) struct Executor<W>(Rc<Inner<W>>);

impl<W> Clone for Executor<W> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

pub(crate) struct Inner<W> {
    began: time::Instant,
    serial: Cell<u64>,
    due: RefCell<BinaryHeap<Due<W>>>,
    tasks: RefCell<Vec<Task>>,
    ready: Arc<Ready>,
    pub(crate) inbox: Inbox<W>,
    random: RefCell<StdRng>,
    trace: RefCell<Vec<String>>,
    pub(crate) processes: RefCell<Vec<Process>>,
    pub(crate) setup: Setup,
    pub(crate) counts: RefCell<Counts>,
    pub(crate) world: RefCell<W>,
}

impl<W> std::ops::Deref for Executor<W> {
    type Target = Inner<W>;

    fn deref(&self) -> &Inner<W> {
        &self.0
    }
}

impl<W: 'static> Executor<W> {
    pub(crate) fn new(seed: u64, setup: Setup, world: W) -> Self {
        Self(Rc::new(Inner {
            began: time::Instant::now(),
            serial: Cell::new(0),
            due: RefCell::default(),
            tasks: RefCell::default(),
            ready: Arc::default(),
            inbox: Inbox(Arc::default()),
            random: RefCell::new(StdRng::seed_from_u64(seed)),
            trace: RefCell::default(),
            processes: RefCell::default(),
            setup,
            counts: RefCell::default(),
            world: RefCell::new(world),
        }))
    }

    // Time

    pub(crate) fn now(&self) -> Millis {
        millis(self.began.elapsed())
    }

    /// Returns the start on the clock of [`Executor::instant`].
    pub(crate) fn began(&self) -> Instant {
        self.began.into_std()
    }

    /// Returns the time on a process's own clock.
    pub(crate) fn instant(&self) -> Instant {
        (self.began + self.began.elapsed()).into_std()
    }

    /// Converts an instant of [`Executor::instant`].
    pub(crate) fn millis_of(&self, instant: Instant) -> Millis {
        millis(instant.saturating_duration_since(self.began()))
    }

    /// Returns the time as a date.
    pub(crate) fn date(&self) -> DateTime<Utc> {
        date(self.now())
    }

    pub(crate) fn sleep(&self, duration: Duration) -> Sleep<W> {
        self.sleep_until(self.now() + millis(duration))
    }

    pub(crate) fn sleep_until(&self, at: Millis) -> Sleep<W> {
        Sleep {
            sim: self.clone(),
            at,
            sleeps: None,
        }
    }

    /// Runs an action at a later moment, even if the caller is gone by then.
    pub(crate) fn after(&self, delay: Millis, then: impl FnOnce(&Self) + 'static) {
        self.push(self.now() + delay, Then::Do(Box::new(then)));
    }

    fn push(&self, at: Millis, then: Then<W>) {
        let serial = self.serial.get();
        self.serial.set(serial + 1);
        self.due.borrow_mut().push(Due { at, serial, then });
    }

    // Chance

    /// Returns a random number below `end`.
    pub(crate) fn below(&self, end: u64) -> u64 {
        self.random.borrow_mut().random_range(0..end.max(1))
    }

    pub(crate) fn between(&self, from: u64, to: u64) -> u64 {
        from + self.below(to.saturating_sub(from))
    }

    /// Returns true with a probability of `chance` in a thousand.
    pub(crate) fn per_mille(&self, chance: u64) -> bool {
        chance > 0 && self.below(1000) < chance
    }

    // Trace

    pub(crate) fn tell(&self, who: ProcessId, what: impl FnOnce() -> String) {
        if self.setup.trace {
            let name = self.processes.borrow()[who.0].name.clone();
            self.note(|| format!("{name}: {}", what()));
        }
    }

    pub(crate) fn note(&self, what: impl FnOnce() -> String) {
        if self.setup.trace {
            let (seconds, rest) = (self.now() / 1000, self.now() % 1000);
            let line = format!("{seconds:>4}.{rest:03} {}", what());
            self.trace.borrow_mut().push(line);
        }
    }

    pub(crate) fn take_trace(&self) -> Vec<String> {
        self.trace.take()
    }

    pub(crate) fn count(&self, what: impl FnOnce(&mut Counts) -> &mut u64) {
        *what(&mut self.counts.borrow_mut()) += 1;
    }

    // Processes

    pub(crate) fn start_process(&self, name: impl Into<String>) -> ProcessId {
        let mut processes = self.processes.borrow_mut();
        processes.push(Process {
            name: name.into(),
            alive: true,
            links: Links::default(),
            hampered_until: 0,
            unheard_until: 0,
            unseen_until: 0,
            frozen: false,
            woken: Vec::new(),
        });
        ProcessId(processes.len() - 1)
    }

    pub(crate) fn with_process<T>(&self, id: ProcessId, f: impl FnOnce(&mut Process) -> T) -> T {
        f(&mut self.processes.borrow_mut()[id.0])
    }

    pub(crate) fn is_alive(&self, id: ProcessId) -> bool {
        self.with_process(id, |process| process.alive)
    }

    pub(crate) fn is_frozen(&self, id: ProcessId) -> bool {
        self.with_process(id, |process| process.frozen)
    }

    /// Kills the process between two polls. Its own tasks must not call this.
    pub(crate) fn kill(&self, id: ProcessId) {
        let was_alive = self.with_process(id, |process| {
            process.hampered_until = Millis::MAX;
            std::mem::take(&mut process.alive)
        });
        if !was_alive {
            return;
        }
        self.tell(id, || "is gone".into());
        let mut dropped = Vec::new();
        for task in self.tasks.borrow_mut().iter_mut() {
            if task.process == id {
                dropped.extend(task.work.take());
            }
        }
        // Dropped tasks may look at the world.
        drop(dropped);
    }

    /// Freezes the process for a while; afterwards it continues unaware of it.
    pub(crate) fn freeze(&self, id: ProcessId, duration: Millis) {
        let freezes = self.with_process(id, |process| {
            process.hampered_until = process.hampered_until.max(self.now() + duration);
            process.alive && !std::mem::replace(&mut process.frozen, true)
        });
        if freezes {
            if self.per_mille(500) {
                // The broker drops a connection that accepts nothing.
                self.with_process(id, |process| process.unseen_until = self.now() + duration);
            }
            self.tell(id, || format!("is frozen for {duration} ms"));
            self.after(duration, move |sim| sim.thaw(id));
        }
    }

    pub(crate) fn thaw(&self, id: ProcessId) {
        let woken = self.with_process(id, |process| {
            process.frozen = false;
            std::mem::take(&mut process.woken)
        });
        self.tell(id, || "goes on".into());
        self.ready.extend(woken);
    }

    pub(crate) fn spawn(&self, process: ProcessId, work: impl Future<Output = ()> + 'static) {
        let mut tasks = self.tasks.borrow_mut();
        let id = tasks.len();
        tasks.push(Task {
            process,
            // Tokio's budget for a task is renewed only where tokio itself polls.
            work: Some(Box::pin(unconstrained(work))),
            waker: Arc::new(TaskWaker {
                id,
                queued: AtomicBool::new(true),
                ready: Arc::clone(&self.ready),
            }),
        });
        self.ready.extend([id]);
    }

    /// Runs until `done` returns true or the time is over.
    pub(crate) async fn run(&self, until: Millis, done: impl Fn(&Self) -> bool) {
        loop {
            while let Some(id) = self.ready.next() {
                self.poll(id);
            }
            let now = self.now();
            if done(self) || now >= until {
                return;
            }
            let next = self.next_due().unwrap_or(until);
            if next <= now {
                let due = self.due.borrow_mut().pop();
                match due.map(|due| due.then) {
                    Some(Then::Do(action)) => action(self),
                    Some(Then::Wake(sleeps)) => {
                        if let Some(waker) = sleeps.upgrade() {
                            waker.wake_by_ref();
                        }
                    }
                    None => {}
                }
                continue;
            }
            tokio::select! {
                biased;
                () = self.ready.filled() => {}
                () = time::sleep_until(self.began + Duration::from_millis(next.min(until))) => {}
            }
        }
    }

    /// Returns when the next action or sleep is due, and forgets dropped sleeps before it.
    fn next_due(&self) -> Option<Millis> {
        let mut all = self.due.borrow_mut();
        while let Some(Due {
            then: Then::Wake(sleeps),
            ..
        }) = all.peek()
            && sleeps.strong_count() == 0
        {
            all.pop();
        }
        all.peek().map(|due| due.at)
    }

    fn poll(&self, id: usize) {
        let (work, waker) = {
            let mut tasks = self.tasks.borrow_mut();
            let task = &mut tasks[id];
            let process = &mut self.processes.borrow_mut()[task.process.0];
            if process.frozen && process.alive {
                process.woken.push(id);
                return;
            }
            task.waker.queued.store(false, Ordering::Relaxed);
            (task.work.take(), Arc::clone(&task.waker))
        };
        let Some(mut work) = work else { return };
        let waker = Waker::from(waker);
        if work
            .as_mut()
            .poll(&mut Context::from_waker(&waker))
            .is_pending()
        {
            self.tasks.borrow_mut()[id].work = Some(work);
        }
        while let Some(action) = { lock(&self.inbox.0).pop_front() } {
            action(self);
        }
    }

    /// Drops the tasks, because their handles form a cycle.
    pub(crate) fn end(&self) {
        let tasks = self.tasks.take();
        let due = self.due.take();
        drop((tasks, due));
    }
}
