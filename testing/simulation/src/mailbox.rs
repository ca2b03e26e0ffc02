//! Communication of tasks: queues, and one-time signals.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// A queue with one receiving task.
pub(crate) struct Mailbox<T>(Rc<RefCell<(VecDeque<T>, Option<Waker>)>>);

impl<T> Clone for Mailbox<T> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<T> Default for Mailbox<T> {
    fn default() -> Self {
        Self(Rc::new(RefCell::new((VecDeque::new(), None))))
    }
}

impl<T> Mailbox<T> {
    pub(crate) fn put(&self, item: T) {
        let waker = {
            let mut inner = self.0.borrow_mut();
            inner.0.push_back(item);
            inner.1.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Returns the next item. Cancel-safe.
    pub(crate) async fn take(&self) -> T {
        std::future::poll_fn(|context| {
            let mut inner = self.0.borrow_mut();
            if let Some(item) = inner.0.pop_front() {
                return Poll::Ready(item);
            }
            inner.1 = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Returns whether another owner can still add an item.
    pub(crate) fn is_shared(&self) -> bool {
        Rc::strong_count(&self.0) > 1
    }
}

/// A one-time event that any number of tasks wait for.
#[derive(Clone, Default)]
pub(crate) struct Signal(Rc<RefCell<(bool, Vec<Waker>)>>);

impl Signal {
    pub(crate) fn raise(&self) {
        let wakers = {
            let mut inner = self.0.borrow_mut();
            inner.0 = true;
            std::mem::take(&mut inner.1)
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Returns an owner that raises it when dropped.
    pub(crate) fn raised_when_dropped(self) -> RaisedWhenDropped {
        RaisedWhenDropped(self)
    }

    pub(crate) async fn raised(&self) {
        std::future::poll_fn(|context| {
            let mut inner = self.0.borrow_mut();
            if inner.0 {
                return Poll::Ready(());
            }
            inner.1.push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// Raises a signal when dropped.
pub(crate) struct RaisedWhenDropped(Signal);

impl Drop for RaisedWhenDropped {
    fn drop(&mut self) {
        self.0.raise();
    }
}
