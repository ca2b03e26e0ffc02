//! One job, from its delivery to its settlement, while something fails at the worst moment.

use std::net::Ipv4Addr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use baton_harness::chaos::proxy::{Mode, Proxy};
use baton_harness::scripted_model::{Gate, Piece, Reply, Script, ScriptedModel};
use baton_metering::Metering;
use baton_nats::StreamSeq;
use baton_protocol::{Event, EventData, RunStatus, WorkerId};
use baton_service::config::{LlmConfig, WorkerConfig};
use baton_service::{Config, Shutdown, SystemClock};
use baton_store::Store;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::fixture::Ground;
use crate::keep_lease::LeaseKeeper;
use crate::model::Upstreams;
use crate::settings::Settings;
use crate::tools::ToolRegistry;

const METERING: Metering = Metering {
    answer_tokens: 1_000,
    attachment_tokens: 1_000,
};
pub(super) const PATIENCE: Duration = Duration::from_mins(1);

pub(super) fn runner(
    ground: &Ground,
    store: Store,
    model: &ScriptedModel,
    lease: Duration,
) -> JobRunner {
    runner_with(ground, store, model, lease, LlmConfig::default())
}

pub(super) fn runner_with(
    ground: &Ground,
    store: Store,
    model: &ScriptedModel,
    lease: Duration,
    llm: LlmConfig,
) -> JobRunner {
    let config = Config {
        llm: LlmConfig {
            base_url: Some(model.base_url()),
            ..llm
        },
        worker: WorkerConfig {
            lease,
            renew_every: lease / 4,
            ..WorkerConfig::default()
        },
        ..Config::default()
    };
    let clock = SystemClock::shared();
    let bus = ground.bus.clone();
    JobRunner {
        worker: WorkerId::new(clock.now()),
        settings: ArcSwap::from_pointee(Settings {
            models: Upstreams::new(&config.llm, None).unwrap(),
            prices: config.llm.prices_in_micros().collect(),
            extra_fields: baton_admission::passed_on::ExtraFields::default(),
            metering: METERING,
            tools: ToolRegistry::new(&config).unwrap(),
            approval_required: config.approval_required().collect(),
            names: crate::metrics::KnownNames::new([], []),
            secrets: Vec::new(),
        }),
        leases: LeaseKeeper::new(
            store.clone(),
            bus.clone(),
            Arc::clone(&clock),
            &config.worker,
        ),
        store,
        bus,
        clock,
        config: config.worker,
        events_per_run: config.nats.events_per_run,
        shutdown: Shutdown::new(),
        cut: CancellationToken::new(),
    }
}

pub(super) fn text(text: &str) -> Piece {
    Piece::Text(text.to_owned())
}

/// Returns the log as stored in the stream, in order, without a reader's interpretation.
pub(super) async fn log(ground: &Ground, run: RunId) -> Vec<Event> {
    let stored = ground
        .bus
        .read_events(ground.tenant, run, StreamSeq::NONE, 100);
    let stored = stored.await.unwrap();
    let lines = stored
        .iter()
        .flat_map(|stored| Event::lines(&stored.payload));
    lines.map(|line| Event::decode(line).unwrap()).collect()
}

pub(super) async fn until_logged(ground: &Ground, run: RunId, what: impl Fn(&Event) -> bool) {
    let logged = async {
        while !log(ground, run).await.iter().any(&what) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, logged).await.expect("it is never logged");
}

async fn status(ground: &Ground, run: RunId) -> RunStatus {
    let mut tx = ground.store.tenant(ground.tenant).await.unwrap();
    let record = tx.run(run).await.unwrap().unwrap();
    tx.commit().await.unwrap();
    record.status
}

/// Guards the look at the ledger after a commit with a lost answer: the run has ended, its worker
/// does not know, and its followers still see the end at once, not only when the broker redelivers.
#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_was_committed_and_not_heard_of_is_told_as_soon_as_the_ledger_answers() {
    let mut ground = Ground::new().await;
    let gate = Gate::closed();
    let pieces = [text("The "), Piece::Wait(gate.clone()), text("end.")];
    let script = Script::always(Reply::pieces(pieces).ended("stop"));
    let model = ScriptedModel::start(script).await.unwrap();
    let server = (Ipv4Addr::LOCALHOST, ground.database.port()).into();
    let proxy = Proxy::start(server).await.unwrap();
    let store = ground.database.store_behind(proxy.address().port()).await;
    let runner = runner(&ground, store, &model, Duration::from_secs(3));
    let run = ground.accept().await;
    let job = ground.job(run).await;

    let breaking = async {
        until_logged(&ground, run, |event| {
            matches!(event.data, EventData::TextDelta(_))
        })
        .await;
        // The test holds the row, so that the commit waits; then it releases the row, but not the
        // answer.
        let mut tx = ground.store.tenant(ground.tenant).await.unwrap();
        tx.request_cancel(run, "never meant").await.unwrap();
        gate.open();
        ground.database.until_blocked("runs.finish").await;
        proxy.set(Mode::StallToClient);
        drop(tx);
        while status(&ground, run).await != RunStatus::Completed {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        while runner.leases.holds_any() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        proxy.set(Mode::Pass);
    };
    let end = async {
        tokio::select! {
            (end, ()) = async { tokio::join!(runner.run_job(job), breaking) } => end,
            () = runner.leases.keep() => unreachable!("it keeps for ever"),
        }
    };
    let end = timeout(PATIENCE, Box::pin(end))
        .await
        .expect("it takes too long");

    assert_eq!(end, JobEnd::Settled);
    let log = log(&ground, run).await;
    let last = log.last().map(|event| &event.data);
    assert!(matches!(last, Some(EventData::RunCompleted(_))), "{log:#?}");
}

/// Guards the request's id in the run: a job that is published again does not have it.
#[tokio::test(flavor = "multi_thread")]
async fn the_request_id_reaches_the_model_although_the_job_has_none() {
    let mut ground = Ground::new().await;
    let script = Script::always(Reply::text("Fine."));
    let model = ScriptedModel::start(script).await.unwrap();
    let runner = runner(&ground, ground.store.clone(), &model, PATIENCE);
    let change = |spec: &mut RunSpec| spec.request_id = Some("order-17".to_owned());
    let run = ground.accept_with(None, change).await;
    let job = ground.job(run).await;
    assert_eq!(job.headers.request_id, None);

    let ran = timeout(PATIENCE, Box::pin(runner.run_job(job))).await;

    assert_eq!(ran.unwrap(), JobEnd::Settled);
    let asked = model.requests();
    assert_eq!(asked[0].headers["x-request-id"], "order-17");
}

/// Guards the log's compare-and-set alone: a replaced worker that wakes and writes before its
/// keeper has asked the ledger leaves nothing in the log, and its successor continues.
#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_worker_that_does_not_ask_the_ledger_writes_nothing_to_the_log() {
    let mut ground = Ground::new().await;
    let (zombie_gate, end_gate) = (Gate::closed(), Gate::closed());
    let gates = (zombie_gate.clone(), end_gate.clone());
    let script = Script::new(move |request| {
        let pieces = match request.index {
            0 => [
                text("zombie "),
                Piece::Wait(gates.0.clone()),
                text("speaks"),
            ],
            _ => [
                text("the rightful "),
                Piece::Wait(gates.1.clone()),
                text("answer"),
            ],
        };
        Reply::pieces(pieces).ended("stop")
    });
    let model = ScriptedModel::start(script).await.unwrap();
    // No renewals: the keepers do not run, and the leases are long.
    let lease = Duration::from_mins(10);
    let zombie = runner(&ground, ground.store.clone(), &model, lease);
    let rightful = runner(&ground, ground.store.clone(), &model, lease);
    let run = ground.accept().await;
    let (first, second) = (ground.job(run).await, ground.job(run).await);

    let text_of = |attempt| {
        move |event: &Event| {
            event.id.attempt() == attempt && matches!(event.data, EventData::TextDelta(_))
        }
    };
    let story = async {
        let replaced = async {
            until_logged(&ground, run, text_of(1)).await;
            let system = ground.store.system();
            let rows = system.held_by(zombie.worker, 10).await.unwrap();
            let taken = system.requeue_silent(zombie.worker, &rows).await.unwrap();
            assert_eq!(taken.len(), 1);
            rightful.run_job(second).await
        };
        let waking = async {
            until_logged(&ground, run, text_of(2)).await;
            zombie_gate.open();
        };
        let zombie_ends = async {
            let end = zombie.run_job(first).await;
            end_gate.open();
            end
        };
        tokio::join!(zombie_ends, replaced, waking)
    };
    let (zombie_end, rightful_end, ()) = timeout(PATIENCE, Box::pin(story))
        .await
        .expect("it takes too long");

    assert_eq!(
        (zombie_end, rightful_end),
        (JobEnd::Settled, JobEnd::Settled)
    );
    let log = log(&ground, run).await;
    let reset = log
        .iter()
        .position(|event| event.id.attempt() == 2)
        .unwrap();
    assert!(
        log[reset..].iter().all(|event| event.id.attempt() == 2),
        "nothing of the first attempt stands behind the second's beginning: {log:#?}"
    );
    let last = log.last().map(|event| &event.data);
    assert!(matches!(last, Some(EventData::RunCompleted(_))), "{log:#?}");
    assert_eq!(status(&ground, run).await, RunStatus::Completed);
}
