//! The tasks that can go on.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Wake};

use futures_util::task::AtomicWaker;

/// Wakes a task.
pub(super) struct TaskWaker {
    pub(super) id: usize,
    pub(super) queued: AtomicBool,
    pub(super) ready: Arc<Ready>,
}

/// The woken tasks, in order.
#[derive(Default)]
pub(super) struct Ready {
    tasks: Mutex<VecDeque<usize>>,
    /// Woken when one is added.
    executor: AtomicWaker,
}

impl Ready {
    pub(super) fn extend(&self, tasks: impl IntoIterator<Item = usize>) {
        lock(&self.tasks).extend(tasks);
        self.executor.wake();
    }

    pub(super) fn next(&self) -> Option<usize> {
        lock(&self.tasks).pop_front()
    }

    /// Waits until a task is woken.
    pub(super) async fn filled(&self) {
        poll_fn(|context| {
            self.executor.register(context.waker());
            if lock(&self.tasks).is_empty() {
                Poll::Pending
            } else {
                Poll::Ready(())
            }
        })
        .await;
    }
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        if !self.queued.swap(true, Ordering::Relaxed) {
            self.ready.extend([self.id]);
        }
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
