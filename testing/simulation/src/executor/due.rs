//! Actions and sleeps, by the moment at which they are due.

use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};

use super::Executor;
use crate::time::Millis;

pub(super) type Action<W> = Box<dyn FnOnce(&Executor<W>)>;

/// Something that is due.
pub(super) enum Then<W> {
    Do(Action<W>),
    /// Wakes the task that sleeps, unless the sleep was dropped.
    Wake(Weak<Waker>),
}

/// Something that is due at a moment; of several at one moment, the oldest is the first.
pub(super) struct Due<W> {
    pub(super) at: Millis,
    pub(super) serial: u64,
    pub(super) then: Then<W>,
}

impl<W> PartialEq for Due<W> {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.serial) == (other.at, other.serial)
    }
}

impl<W> Eq for Due<W> {}

impl<W> PartialOrd for Due<W> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// Reverses the order, because the heap's top is its greatest and must be due first.
impl<W> Ord for Due<W> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.at, other.serial).cmp(&(self.at, self.serial))
    }
}

/// A future that completes at a moment.
pub(crate) struct Sleep<W> {
    pub(super) sim: Executor<W>,
    pub(super) at: Millis,
    pub(super) sleeps: Option<Rc<Waker>>,
}

impl<W: 'static> Future for Sleep<W> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.sim.now() >= self.at {
            return Poll::Ready(());
        }
        if self.sleeps.is_none() {
            let sleeps = Rc::new(context.waker().clone());
            self.sim.push(self.at, Then::Wake(Rc::downgrade(&sleeps)));
            self.sleeps = Some(sleeps);
        }
        Poll::Pending
    }
}
