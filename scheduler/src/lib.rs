//! The scheduler: repairs the state after crashes and lost messages.
//!
//! Any number of schedulers may run. Each duty is a guarded statement or an idempotent request, so
//! two schedulers that do the same work do no harm.

pub mod find_stranded;
pub mod metrics;
pub mod purge_runs;
pub mod purge_threads;
pub mod repair_ends;
pub mod rescue_runs;
pub mod restore_streams;
pub mod title_threads;
pub mod watch_workers;

use std::time::Duration;

use baton_nats::{Bus, StreamOptions};
use baton_protocol::Lane;
use baton_protocol::liveness::ASK_EVERY;
use baton_service::config::SchedulerConfig;
use baton_service::{Background, Readiness, SharedClock, Shutdown};
use baton_store::Store;
use tokio::sync::Notify;

use crate::find_stranded::FindStranded;
use crate::purge_runs::purge_runs;
use crate::purge_threads::purge_threads;
use crate::repair_ends::RepairEnds;
use crate::rescue_runs::RescueRuns;
use crate::title_threads::title_threads;
use crate::watch_workers::WatchWorkers;

/// The interval of checks of the broker's streams, consumers and backlog.
const BROKER_EVERY: Duration = Duration::from_secs(5);

/// Interval at which parts of the audit log are made; three months are made ahead.
const PARTS_EVERY: Duration = Duration::from_hours(6);

/// The dependencies of a scheduler.
pub struct SchedulerDeps {
    /// Intervals and time limits.
    pub config: SchedulerConfig,
    /// The definitions of streams and consumers.
    pub streams: StreamOptions,
    /// The ledger.
    pub store: Store,
    /// The broker.
    pub bus: Bus,
    /// The time.
    pub clock: SharedClock,
    /// The stop requests.
    pub shutdown: Shutdown,
    /// The latch that opens when the duties begin.
    pub readiness: Readiness,
}

/// Runs its duties until the soft stop.
pub async fn run(deps: SchedulerDeps) -> anyhow::Result<()> {
    let SchedulerDeps {
        config,
        streams,
        store,
        bus,
        clock,
        shutdown,
        readiness,
    } = deps;
    baton_metrics::register(metrics::METRICS);
    let rescue = RescueRuns {
        store: store.clone(),
        bus: bus.clone(),
        publish_timeout: config.publish_timeout,
        ack_wait: streams.ack_wait,
    };
    let ends = RepairEnds::new(store.clone(), bus.clone(), SharedClock::clone(&clock));
    let watch = WatchWorkers::new(store.clone(), bus.clone(), SharedClock::clone(&clock));
    let restore = Background {
        name: "restore_streams",
        every: BROKER_EVERY,
    };
    let repair = Background {
        // The label of its metrics, which keeps its older name.
        name: "tell_ends",
        every: BROKER_EVERY,
    };
    let sweep = Background {
        name: "rescue_runs",
        every: config.sweep_every,
    };
    let stranded = FindStranded::new(bus.clone());
    let find = Background {
        name: "find_stranded",
        every: BROKER_EVERY,
    };
    let ask = Background {
        name: "watch_workers",
        every: ASK_EVERY,
    };
    let extend = Background {
        name: "extend_audit_log",
        every: PARTS_EVERY,
    };
    let purge = Background {
        name: "purge_threads",
        every: BROKER_EVERY,
    };
    let forget = Background {
        name: "purge_runs",
        every: BROKER_EVERY,
    };
    let title = Background {
        name: "title_threads",
        every: BROKER_EVERY,
    };
    let measure = Background {
        name: "measure_queue",
        every: BROKER_EVERY,
    };
    // Nothing wakes the other duties early; their sweeps find the work.
    let never = Notify::new();
    let newcomer = Notify::new();
    let listen = async {
        let heard = tokio::select! {
            heard = watch.listen(&newcomer) => heard,
            () = shutdown.soft.cancelled() => Ok(()),
        };
        if heard.is_err() {
            // Without greetings no new worker is watched: the role ends, and is started again.
            shutdown.soft.cancel();
        }
        heard
    };
    readiness.part("duties").ready();
    let (listened, ..) = tokio::join!(
        listen,
        ask.run(&newcomer, &shutdown, || Box::pin(watch.look())),
        restore.run(&never, &shutdown, || restore_streams::restore_streams(
            &bus, &streams
        )),
        repair.run(&never, &shutdown, || Box::pin(ends.look())),
        sweep.run(&never, &shutdown, || Box::pin(rescue.sweep())),
        find.run(&never, &shutdown, || Box::pin(stranded.look())),
        extend.run(&never, &shutdown, || extend_audit_log(&store, &clock)),
        purge.run(&never, &shutdown, || purge_threads(&store)),
        forget.run(&never, &shutdown, || purge_runs(&store, &*clock)),
        title.run(&never, &shutdown, || title_threads(&store)),
        measure.run(&never, &shutdown, || measure_queue(&store, &bus)),
    );
    listened
}

/// Makes the parts of the audit log for the months to come.
async fn extend_audit_log(store: &Store, clock: &SharedClock) -> anyhow::Result<()> {
    let made = store.system().extend_audit_log(clock.now()).await?;
    if !made.is_empty() {
        tracing::info!(
            parts = made.join(" "),
            "the audit log has parts for more months"
        );
    }
    Ok(())
}

async fn measure_queue(store: &Store, bus: &Bus) -> anyhow::Result<()> {
    let stats = store.system().queue_stats().await?;
    metrics::clear_queue();
    for stat in stats {
        metrics::queue(stat);
    }
    for lane in Lane::ALL {
        let backlog = bus.job_backlog(lane).await?;
        metrics::backlog(lane, &backlog);
    }
    Ok(())
}
