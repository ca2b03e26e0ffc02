//! `make chaos`: real processes under a steady load, with faults all the time.
//!
//! A seed decides the schedule of faults. Clients record the answers that they get. When everything
//! is mended and quiet, the ledger and the event log are written next to these records, and
//! [`crate::checker`] judges the whole.

pub mod broker_disk;
pub mod cast;
pub mod cursor_watch;
pub mod dump;
pub mod faults;
pub mod fleet;
pub mod harvest;
pub mod holders;
pub mod hostile_client;
pub mod hostile_program;
pub mod load;
pub mod operator;
pub mod outside;
pub mod people;
pub mod plan;
pub mod program;
pub mod proxy;
pub mod record;
pub mod shortage;
pub mod speech;
pub mod talkers;

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use baton_devstack::{Postgres, PostgresOptions};
use baton_invariants::Invariant;
use baton_store::{Login, bootstrap};
use tokio_util::task::TaskTracker;

use crate::checker::{self, History, Judgement, Violation};
use crate::logins::Logins;

use broker_disk::BrokerDisk;
use cast::{Cast, HOLDERS, TALKERS};
use cursor_watch::CursorWatch;
use faults::Faults;
use fleet::{Fleet, LEASE, Setting};
use harvest::Harvest;
use load::{Habit, Load};
use operator::Operator;
use outside::Outside;
use plan::{Emphasis, Plan};
use program::Program;
use proxy::Proxy;
use record::Recorder;
use shortage::Shortage;

/// The tenant of the load.
const TENANT: &str = "chaos";
/// The name of the key that submits nearly all runs.
const FIRST: &str = "first";
const DATABASE: &str = "baton";

/// The settings of a chaos run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The program.
    pub baton: PathBuf,
    /// An earlier version of the program; processes of both take turns.
    pub older: Option<PathBuf>,
    /// The seed of the schedule of faults.
    pub seed: u64,
    /// The time during which things break.
    pub time: Duration,
    /// The average time from one fault to the next.
    pub pause: Duration,
    /// The emphasis of the faults.
    pub emphasis: Emphasis,
    /// The number of clients.
    pub clients: usize,
    /// Whether there are other participants than these clients, hostile ones among them.
    pub strangers: bool,
    /// The most conversations that begin in a second.
    pub per_second: Option<f64>,
    /// The time for accepted runs to end once nothing is broken. It is far above what they need;
    /// the wait ends when they have ended.
    pub calm: Duration,
    /// The folder for the history and the logs.
    pub folder: PathBuf,
}

/// Breaks things for a while, and judges the outcome.
pub async fn run(options: &Options) -> anyhow::Result<Judgement> {
    let folder = &options.folder;
    if folder.exists() {
        std::fs::remove_dir_all(folder)?;
    }
    std::fs::create_dir_all(folder)?;
    let recorder = Arc::new(Recorder::create(&folder.join(History::RECORDS))?);
    let (mut faults, cast, cursors) = set_up(options, Arc::clone(&recorder)).await?;

    let addresses = faults.fleet.addresses();
    let mut load = Load::new(
        &addresses,
        &cast.first.secret,
        Arc::clone(&recorder),
        options.per_second,
    );
    load.program = Some(Program::new(faults.broker.url(), cast.first.clone()));
    load.long_answers = matches!(
        options.emphasis,
        Emphasis::LateCommits | Emphasis::LateRepeats
    );
    let load = Arc::new(load);
    let guests = TaskTracker::new();
    let mut seed = options.seed;
    for client in 0..options.clients {
        seed = seed.wrapping_mul(31).wrapping_add(1);
        let habit = match options.emphasis {
            // The look at the last confirmation is before calls of tools.
            Emphasis::Unseen => Habit::Tools,
            _ => Habit::of(client),
        };
        guests.spawn(Arc::clone(&load).live(habit, seed));
    }
    guests.close();
    let broker = SocketAddr::from((Ipv4Addr::LOCALHOST, faults.broker.port()));
    let talkers = cast.talkers(&load, faults.broker.url());
    let others = if options.strangers {
        cast.enter(&load, &talkers, broker, &addresses, seed)
    } else {
        TaskTracker::new()
    };
    others.close();
    let operator = TaskTracker::new();
    let theirs = talkers.clients();
    for servers in [load.clients.clone(), theirs.clone()] {
        let load = Arc::clone(&load);
        operator.spawn(Operator { load, servers }.operate(seed));
    }
    operator.close();
    let plan = Plan::new(options.seed, LEASE, options.pause, options.emphasis);
    faults.rage(plan, options.time).await?;
    load.stop.cancel();
    others.wait().await;
    let stuck = faults.fleet.until_ready_or_replaced().await?;

    // The checker names the runs that are not over by then.
    let calm = options.calm;
    let served = tokio::time::timeout(calm, guests.wait()).await.is_ok();
    load.give_up.cancel();
    guests.wait().await;
    let client = &load.clients[0];
    dump::until_quiet(client, if served { calm } else { Duration::ZERO }).await;
    // The checker names those of their runs that are not over either.
    dump::until_quiet(&theirs[0], calm).await;
    load.done.cancel();
    operator.wait().await;
    talkers.record(&theirs[0]).await?;
    recorder.flush()?;
    let submitted = checker::submitted(folder)?;
    let harvest = &faults.harvest;
    let unsettled = harvest.unsettled().await?;
    let overspent = harvest.overspent(HOLDERS).await?;
    let strays = harvest.misattributed(cast.first.key, &submitted).await?;
    let gone_back = cursors.gone_back().await?;
    dump::write(faults.harvest, [client, &theirs[0]], folder, calm).await?;
    let amiss = faults.fleet.stop().await;
    // The roles have written their last records.
    recorder.flush()?;
    let (broker, database) = tokio::join!(faults.broker.stop(), faults.database.stop());
    broker?;
    database?;

    let mut judgement = checker::judge_folder(folder)?;
    let amiss = amiss.into_iter().map(|found| (Invariant::I16, found));
    let stuck = stuck.into_iter();
    let amiss = amiss.chain(stuck.map(|role| {
        let found = format!("{role} was not ready a minute after everything was mended");
        (Invariant::I1, found)
    }));
    let amiss = amiss.chain(unsettled.map(|found| (Invariant::I6, found)));
    let amiss = amiss.chain(overspent.map(|found| (Invariant::I25, found)));
    let panics = panics(folder)?
        .into_iter()
        .map(|found| (Invariant::I16, found));
    judgement
        .violations
        .extend(amiss.chain(panics).map(|(invariant, found)| Violation {
            invariant,
            run: None,
            found,
        }));
    let of_run = |invariant| {
        move |(run, found)| Violation {
            invariant,
            run: Some(run),
            found,
        }
    };
    let strays = strays.into_iter().map(of_run(Invariant::I18));
    let gone_back = gone_back.into_iter().map(of_run(Invariant::I11));
    judgement.violations.extend(strays.chain(gone_back));
    Ok(judgement)
}

/// Finds panics in the roles' logs. No role may panic, whatever is broken around it.
fn panics(folder: &Path) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "log") {
            continue;
        }
        for line in BufReader::new(File::open(&path)?).split(b'\n') {
            let line = line?;
            let line = String::from_utf8_lossy(&line);
            if line.contains("panicked at") {
                found.push(format!("{}: {line}", path.display()));
            }
        }
    }
    Ok(found)
}

async fn set_up(
    options: &Options,
    recorder: Arc<Recorder>,
) -> anyhow::Result<(Faults, Cast, CursorWatch)> {
    let logins = Logins::delivered()?;
    let (broker, database) = tokio::try_join!(logins.start_as_delivered(), async {
        Ok(Postgres::start(PostgresOptions {
            durable: true,
            ..PostgresOptions::ephemeral()
        })
        .await?)
    },)?;
    let password = database.superuser_password().to_owned();
    let login = |user| Login {
        user,
        password: &password,
    };
    let (owner, app) = ("baton_owner", "baton");
    bootstrap(database.superuser_url(), DATABASE, login(owner), login(app))
        .await
        .context("the database cannot be prepared")?;
    let outside = Outside::start(Arc::clone(&recorder)).await?;
    let upstream = Proxy::start(outside.address).await?;
    let config = options.folder.join("baton.toml");
    std::fs::write(&config, outside.config())?;
    let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let setting = Arc::new(Setting {
        baton: std::path::absolute(&options.baton)?,
        older: options
            .older
            .as_ref()
            .map(std::path::absolute)
            .transpose()?,
        config: std::path::absolute(config)?,
        folder: options.folder.clone(),
        broker: local(broker.port()),
        logins,
        jwt_secret: uuid::Uuid::new_v4().simple().to_string(),
        database: local(database.port()),
        login: (owner.into(), app.into(), password, DATABASE.into()),
        upstream: upstream.address(),
    });
    setting.migrate().await?;
    let cursors = CursorWatch::begin(database.superuser_url(), DATABASE).await?;
    let api_key = setting
        .run(&[
            "keys",
            "create",
            "--tenant",
            TENANT,
            "--name",
            FIRST,
            // Higher than any number of runs here, because only the counting is tested: the count
            // must be right in the end.
            "--concurrent-runs",
            "1000000",
            "--monthly-tokens",
            "1000000000000",
        ])
        .await?;
    let tenants = [TENANT, TALKERS];
    let harvest = Harvest::open(&setting, tenants, &options.folder).await?;
    let cast = Cast::make(&setting, &harvest, TENANT, (FIRST, &api_key)).await?;
    let shortage = Shortage::new(&setting, database.superuser_url()).await?;
    let fleet = Fleet::start(setting, Arc::clone(&recorder)).await?;
    let faults = Faults {
        broker,
        harvest,
        disk: BrokerDisk::new(options.folder.join("broker-disk")),
        database,
        upstream,
        outside,
        shortage,
        fleet,
        recorder,
        due: Vec::new(),
    };
    Ok((faults, cast, cursors))
}
