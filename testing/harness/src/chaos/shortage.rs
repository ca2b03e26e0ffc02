//! Takes away what roles and servers need: files, connections, readers that keep up.

use std::collections::HashMap;
use std::time::Duration;

use async_nats::{Client, ConnectOptions};
use baton_test_ledger::Places;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::fleet::Setting;

/// The time for occupying all connections.
const LIMIT: Duration = Duration::from_secs(3);
/// The number of messages that overwhelm a stopped reader: more than the server's `max_pending`.
const MESSAGES: usize = 80;
/// The size of each in bytes.
const LARGE: usize = 1_000_000;
/// A subject that every ingress subscribes to; a message of this length means nothing there.
const HEARD_BY_INGRESSES: &str = "ingress.revoked";

/// The files and connections that are taken, until they are given back.
#[derive(Debug)]
pub struct Shortage {
    files: HashMap<u32, Rlimit>,
    superuser: String,
    app: String,
    places: Option<Places>,
    broker: Client,
    tasks: TaskTracker,
    /// Cancelled when no reader may be overwhelmed any longer.
    pub slow_down: CancellationToken,
}

impl Shortage {
    /// Makes a shortage that has taken nothing yet.
    pub async fn new(setting: &Setting, superuser: &str) -> anyhow::Result<Self> {
        let (user, password) = setting.logins.unlimited();
        let broker = ConnectOptions::with_user_and_password(user, password)
            .connect(format!("nats://{}", setting.broker))
            .await?;
        Ok(Self {
            files: HashMap::new(),
            superuser: superuser.to_owned(),
            app: setting.database_url(),
            places: None,
            broker,
            tasks: TaskTracker::new(),
            slow_down: CancellationToken::new(),
        })
    }

    /// Keeps a process from opening more files than it has; returns whether that worked.
    pub fn take_files(&mut self, pid: u32) -> bool {
        let Some(process) = process(pid) else {
            return false;
        };
        let Ok(open) = std::fs::read_dir(format!("/proc/{pid}/fd")) else {
            return false;
        };
        let open = u64::try_from(open.count()).unwrap_or(u64::MAX);
        let Some(before) = self.files.get(&pid).copied().or_else(|| limit_of(pid)) else {
            return false;
        };
        let short = Rlimit {
            current: Some(open),
            ..before
        };
        let taken = prlimit(Some(process), Resource::Nofile, short).is_ok();
        if taken {
            self.files.insert(pid, before);
        }
        taken
    }

    /// Lets a process open as many files as before.
    pub fn give_files_back(&mut self, pid: u32) {
        if let (Some(process), Some(before)) = (process(pid), self.files.remove(&pid)) {
            // A process that has ended meanwhile needs no limit.
            let _gone = prlimit(Some(process), Resource::Nofile, before);
        }
    }

    /// Occupies all connections that PostgreSQL allows, some of them taken from roles; returns
    /// whether that worked.
    pub async fn take_places(&mut self) -> bool {
        self.places = None;
        let taking = Places::take(&self.superuser, &self.app);
        self.places = match timeout(LIMIT, taking).await {
            Ok(Ok(places)) => Some(places),
            _ => None,
        };
        self.places.is_some()
    }

    /// Frees the connections.
    pub fn give_places_back(&mut self) {
        self.places = None;
    }

    /// Sends every ingress more than the server buffers for a client that does not read.
    pub fn overwhelm(&self) {
        let (broker, slow_down) = (self.broker.clone(), self.slow_down.clone());
        let sending = async move {
            let large = bytes::Bytes::from(vec![b' '; LARGE]);
            for _ in 0..MESSAGES {
                let sent = broker.publish(HEARD_BY_INGRESSES, large.clone()).await;
                if sent.is_err() || broker.flush().await.is_err() {
                    return;
                }
            }
        };
        self.tasks
            .spawn(slow_down.run_until_cancelled_owned(sending));
    }
}

fn process(pid: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(pid).ok()?)
}

/// Returns a process's limit of open files.
fn limit_of(pid: u32) -> Option<Rlimit> {
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    let mut numbers = line.split_whitespace().map(|number| number.parse().ok());
    Some(Rlimit {
        current: numbers.next()?,
        maximum: numbers.next()?,
    })
}
