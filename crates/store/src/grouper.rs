//! Groups rows that wait for the same statement: while one group is under way, the rows that arrive
//! meanwhile form the next. There is no timer, so that a lone row is a group of one and never waits.

use std::collections::VecDeque;
use std::collections::hash_map::{Entry, HashMap};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use baton_protocol::TenantId;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

/// The most rows of one group.
const ROWS: usize = 64;
/// The most bytes of one group. A larger row goes by itself, so that it delays no others.
const BYTES: usize = 256 * 1024;

/// The usual time after which rows no longer wait for the group under way. One lock or one dead
/// connection must not delay all others.
pub const SLOW_GROUP: Duration = Duration::from_millis(100);

/// Executes the statement for a group, and returns an answer for each row in order.
type Execute<R, A> = dyn Fn(Vec<R>) -> BoxFuture<'static, Vec<Submitted<A>>> + Send + Sync;

/// The answer to a submitted row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Submitted<A> {
    Answered(A),
    /// Nothing was written for the row: the caller is to execute it by itself.
    Left,
    /// The group failed, and may have written the row.
    Lost,
}

/// The rows of type `R` that wait for one statement, which answers each with an `A`.
pub(crate) struct Grouper<R, A>(Arc<Shared<R, A>>);

struct Shared<R, A> {
    execute: Box<Execute<R, A>>,
    slow: Duration,
    tasks: TaskTracker,
    /// The lanes in which a group is under way.
    lanes: Mutex<HashMap<Lane, Queue<R, A>>>,
}

/// The rows that may share a group: those of one tenant, or of all tenants.
pub(crate) type Lane = Option<TenantId>;

struct Queue<R, A> {
    waiting: HashMap<TenantId, VecDeque<Waiting<R, A>>>,
    /// The tenants that have rows waiting, in the order of their turns.
    turns: VecDeque<TenantId>,
}

struct Waiting<R, A> {
    row: R,
    bytes: usize,
    answer: oneshot::Sender<Submitted<A>>,
}

impl<R: Send + 'static, A: Send + 'static> Grouper<R, A> {
    /// Makes a grouper. After the time `slow`, rows no longer wait for the group under way.
    pub(crate) fn new<F>(
        slow: Duration,
        execute: impl Fn(Vec<R>) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Vec<Submitted<A>>> + Send + 'static,
    {
        Self(Arc::new(Shared {
            execute: Box::new(move |rows| execute(rows).boxed()),
            slow,
            tasks: TaskTracker::new(),
            lanes: Mutex::default(),
        }))
    }

    /// Returns the answer to the row. The group goes on without a caller that gives up: its row is
    /// written or it is not, as if the answer to a statement of its own had been lost.
    pub(crate) async fn submit(
        &self,
        lane: Lane,
        tenant: TenantId,
        bytes: usize,
        row: R,
    ) -> Submitted<A> {
        if bytes > BYTES || self.0.tasks.is_closed() {
            return Submitted::Left;
        }
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting { row, bytes, answer };
        let idle = match self.0.lanes().entry(lane) {
            Entry::Occupied(mut lane) => {
                lane.get_mut().push(tenant, waiting);
                false
            }
            Entry::Vacant(lane) => {
                lane.insert(Queue::default()).push(tenant, waiting);
                true
            }
        };
        if idle {
            self.0.tasks.spawn(Arc::clone(&self.0).work(lane));
        }
        // The sender is dropped if the group panicked.
        answered.await.unwrap_or(Submitted::Lost)
    }

    /// Refuses further rows, and waits for those that were taken.
    pub(crate) async fn drain(&self) {
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }
}

impl<R: Send + 'static, A: Send + 'static> Shared<R, A> {
    fn lanes(&self) -> MutexGuard<'_, HashMap<Lane, Queue<R, A>>> {
        // A poisoned lock is harmless: nothing under it can leave a queue half changed.
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Executes one group after the other until none waits, or one is slow: another task then goes
    /// on with the lane.
    fn work(self: Arc<Self>, lane: Lane) -> BoxFuture<'static, ()> {
        async move {
            while let Some(group) = self.next_group(lane) {
                let (rows, callers): (Vec<_>, Vec<_>) =
                    group.into_iter().map(|one| (one.row, one.answer)).unzip();
                // A panic must not leave the lane busy for ever.
                let executed = AssertUnwindSafe(async { (self.execute)(rows).await });
                let mut executed = pin!(executed.catch_unwind());
                let in_time = timeout(self.slow, &mut executed).await.ok();
                let slow = in_time.is_none();
                let answers = if let Some(answers) = in_time {
                    answers
                } else {
                    self.tasks.spawn(Arc::clone(&self).work(lane));
                    executed.await
                };
                for (caller, answer) in callers.into_iter().zip(answers.unwrap_or_default()) {
                    // A caller that gave up needs no answer.
                    let _ = caller.send(answer);
                }
                if slow {
                    return;
                }
            }
        }
        .boxed()
    }

    /// Takes the next group of the lane; if nothing waits, the lane is idle afterwards.
    fn next_group(&self, lane: Lane) -> Option<Vec<Waiting<R, A>>> {
        let mut lanes = self.lanes();
        let group = lanes.get_mut(&lane)?.take();
        if group.is_empty() {
            lanes.remove(&lane);
            return None;
        }
        Some(group)
    }
}

impl<R, A> Default for Queue<R, A> {
    fn default() -> Self {
        Self {
            waiting: HashMap::new(),
            turns: VecDeque::new(),
        }
    }
}

impl<R, A> Queue<R, A> {
    fn push(&mut self, tenant: TenantId, waiting: Waiting<R, A>) {
        let rows = self.waiting.entry(tenant).or_default();
        if rows.is_empty() {
            self.turns.push_back(tenant);
        }
        rows.push_back(waiting);
    }

    /// Takes a row of each tenant in turn, so that a tenant with many rows delays no other. Leaves
    /// out the rows of callers that gave up.
    fn take(&mut self) -> Vec<Waiting<R, A>> {
        let (mut group, mut bytes) = (Vec::new(), 0);
        while group.len() < ROWS {
            let Some(tenant) = self.turns.pop_front() else {
                break;
            };
            let Some(rows) = self.waiting.get_mut(&tenant) else {
                continue;
            };
            while rows.front().is_some_and(|row| row.answer.is_closed()) {
                rows.pop_front();
            }
            if rows.front().is_some_and(|row| bytes + row.bytes > BYTES) {
                self.turns.push_front(tenant);
                break;
            }
            if let Some(row) = rows.pop_front() {
                bytes += row.bytes;
                group.push(row);
            }
            if rows.is_empty() {
                self.waiting.remove(&tenant);
            } else {
                self.turns.push_back(tenant);
            }
        }
        group
    }
}

impl<R, A> std::fmt::Debug for Grouper<R, A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Grouper").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::{Arc, Mutex};

    use baton_protocol::TenantId;
    use futures_util::future::join_all;
    use futures_util::poll;
    use tokio::sync::Semaphore;
    use uuid::Uuid;

    use super::Submitted::{Answered, Left, Lost};
    use super::{BYTES, Grouper, ROWS, SLOW_GROUP, Submitted};

    /// A grouper that answers each row with its double. Each of its groups waits for a permit.
    struct Gated {
        grouper: Grouper<u32, u32>,
        gate: Arc<Semaphore>,
        groups: Arc<Mutex<Vec<Vec<u32>>>>,
    }

    fn gated() -> Gated {
        let (gate, groups) = (Arc::new(Semaphore::new(0)), Arc::default());
        let (entry, seen) = (Arc::clone(&gate), Arc::<Mutex<Vec<_>>>::clone(&groups));
        let grouper = Grouper::new(SLOW_GROUP, move |rows: Vec<u32>| {
            let entry = Arc::clone(&entry);
            seen.lock().unwrap().push(rows.clone());
            async move {
                entry.acquire().await.unwrap().forget();
                assert!(!rows.contains(&13), "thirteen");
                rows.into_iter()
                    .map(|row| match row {
                        7 => Submitted::Left,
                        row => Submitted::Answered(2 * row),
                    })
                    .collect()
            }
        });
        Gated {
            grouper,
            gate,
            groups,
        }
    }

    impl Gated {
        /// Submits each row for its tenant, all at once, with enough permits for them.
        async fn submit_all(&self, rows: &[(TenantId, u32)]) -> Vec<Submitted<u32>> {
            self.gate.add_permits(rows.len());
            let rows = rows.iter();
            join_all(rows.map(|(tenant, row)| self.grouper.submit(None, *tenant, 1, *row))).await
        }

        fn groups(&self) -> Vec<Vec<u32>> {
            self.groups.lock().unwrap().clone()
        }
    }

    fn tenant(number: u128) -> TenantId {
        TenantId::from_uuid(Uuid::from_u128(number))
    }

    /// The rows `0..count` of one tenant.
    fn rows_of_one(count: usize) -> Vec<(TenantId, u32)> {
        (0..count)
            .map(|row| (tenant(1), u32::try_from(row).unwrap()))
            .collect()
    }

    #[tokio::test]
    async fn rows_that_arrive_while_a_group_is_under_way_form_the_next() {
        let gated = gated();
        let mut lone = pin!(gated.grouper.submit(None, tenant(1), 1, 1));
        assert!(poll!(&mut lone).is_pending());
        while gated.groups().is_empty() {
            tokio::task::yield_now().await;
        }
        let rows = [(tenant(1), 2), (tenant(1), 7), (tenant(1), 3)];
        assert_eq!(
            gated.submit_all(&rows).await,
            [Answered(4), Left, Answered(6)]
        );
        assert_eq!(lone.await, Answered(2));
        assert_eq!(gated.groups(), [vec![1], vec![2, 7, 3]]);
    }

    #[tokio::test]
    async fn a_group_has_at_most_so_many_rows_and_bytes() {
        let gated = gated();
        gated.submit_all(&rows_of_one(2 * ROWS + 1)).await;
        let sizes: Vec<_> = gated.groups().iter().map(Vec::len).collect();
        assert_eq!(sizes, [ROWS, ROWS, 1]);

        let submit = |bytes| gated.grouper.submit(None, tenant(1), bytes, 1);
        assert_eq!(submit(BYTES + 1).await, Left);
        gated.gate.add_permits(3);
        join_all([BYTES, BYTES / 2, BYTES / 2].map(submit)).await;
        let sizes: Vec<_> = gated.groups().iter().skip(3).map(Vec::len).collect();
        assert_eq!(sizes, [1, 2]);
    }

    #[tokio::test]
    async fn a_tenant_with_many_rows_delays_no_other() {
        let gated = gated();
        let mut rows = rows_of_one(2 * ROWS);
        rows.push((tenant(2), 1_000));
        gated.submit_all(&rows).await;
        assert!(gated.groups()[0].contains(&1_000), "{:?}", gated.groups());
    }

    #[tokio::test]
    async fn lanes_do_not_wait_for_each_other() {
        let gated = gated();
        let [one, two] = [1, 2].map(|number| {
            let tenant = tenant(number);
            gated.grouper.submit(Some(tenant), tenant, 1, 5)
        });
        let (mut one, mut two) = (pin!(one), pin!(two));
        assert!(poll!(&mut one).is_pending() && poll!(&mut two).is_pending());
        while gated.groups().len() < 2 {
            tokio::task::yield_now().await;
        }
        gated.gate.add_permits(2);
        assert_eq!((one.await, two.await), (Answered(10), Answered(10)));
    }

    #[tokio::test]
    async fn a_caller_that_gives_up_takes_nobody_with_it() {
        let gated = gated();
        let mut first = Box::pin(gated.grouper.submit(None, tenant(1), 1, 1));
        assert!(poll!(&mut first).is_pending());
        while gated.groups().is_empty() {
            tokio::task::yield_now().await;
        }
        // One gives up while its group is under way, another while it waits.
        drop(first);
        let mut second = Box::pin(gated.grouper.submit(None, tenant(1), 1, 2));
        let mut third = pin!(gated.grouper.submit(None, tenant(1), 1, 3));
        assert!(poll!(&mut second).is_pending() && poll!(&mut third).is_pending());
        drop(second);
        gated.gate.add_permits(2);
        assert_eq!(third.await, Answered(6));
        assert_eq!(gated.groups(), [vec![1], vec![3]]);
    }

    #[tokio::test]
    async fn a_slow_group_delays_the_rows_after_it_no_longer_than_a_moment() {
        let gated = gated();
        let mut slow = pin!(gated.grouper.submit(None, tenant(1), 1, 1));
        assert!(poll!(&mut slow).is_pending());
        while gated.groups().is_empty() {
            tokio::task::yield_now().await;
        }
        let mut next = pin!(gated.grouper.submit(None, tenant(1), 1, 2));
        assert!(poll!(&mut next).is_pending());
        while gated.groups().len() < 2 {
            tokio::time::sleep(SLOW_GROUP).await;
        }
        assert!(poll!(&mut slow).is_pending());
        gated.gate.add_permits(2);
        assert_eq!((slow.await, next.await), (Answered(2), Answered(4)));
    }

    #[tokio::test]
    async fn after_a_panic_each_answer_is_lost_and_the_next_group_is_executed() {
        let gated = gated();
        let rows = [(tenant(1), 13), (tenant(1), 4)];
        assert_eq!(gated.submit_all(&rows).await, [Lost, Lost]);
        assert_eq!(gated.submit_all(&[(tenant(1), 5)]).await, [Answered(10)]);
    }

    #[tokio::test]
    async fn a_drain_waits_for_the_rows_taken_and_refuses_further_ones() {
        let gated = gated();
        let mut taken = pin!(gated.grouper.submit(None, tenant(1), 1, 1));
        assert!(poll!(&mut taken).is_pending());
        let mut drain = pin!(gated.grouper.drain());
        assert!(poll!(&mut drain).is_pending());
        assert_eq!(gated.grouper.submit(None, tenant(1), 1, 2).await, Left);
        gated.gate.add_permits(1);
        drain.await;
        assert_eq!(taken.await, Answered(2));
    }
}
