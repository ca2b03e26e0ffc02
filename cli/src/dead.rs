//! `baton dead`: messages that were set aside because nobody could process them, and their replay.

mod replays;

use std::io::Write as _;

use anyhow::{Context as _, bail};
use baton_nats::{Bus, DeadLetter, Replayed};
use baton_service::Config;
use baton_service::config::Required;
use baton_store::Store;
use clap::Subcommand;
use serde::Deserialize;

use self::replays::Replays;
use crate::args::ConfigArgs;
use crate::config_command::{self, print};
use crate::visible::{visible, visible_bytes};
use crate::{ledger, role};

#[derive(Debug, Subcommand)]
pub(crate) enum DeadCommand {
    /// List them, the oldest first: sequence, time, subject, run, reason; then their last replay
    ///
    /// The last replay of each message, with its result, is on a separate line below it. It comes
    /// from the audit log, which is read if a database is configured.
    List {
        /// From this sequence on
        #[arg(long, value_name = "SEQUENCE", default_value_t = 1)]
        from: u64,
        /// The most messages to list
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: usize,
        /// Only those that no replay has delivered
        #[arg(long)]
        open: bool,
    },
    /// Print one message, with escapes for control characters; details about it go to standard
    /// error
    Show {
        /// Its sequence, as `list` shows it
        sequence: u64,
        /// Print its bytes unchanged, for a file or another program
        #[arg(long)]
        raw: bool,
    },
    /// Deliver messages once more, after the reason of the failure is repaired
    ///
    /// A submission goes to an ingress on behalf of the program that published it, and is checked
    /// like a new one; a job goes to the workers' queue. Repeating a replay does no harm. The
    /// copies stay; `list` shows the result of each.
    Replay {
        /// Their sequences, as `list` shows them
        #[arg(value_name = "SEQUENCE", required_unless_present = "all_with_reason")]
        sequences: Vec<u64>,
        /// All with this text in their reason, except those that an earlier replay has delivered
        #[arg(long, value_name = "TEXT", conflicts_with = "sequences")]
        all_with_reason: Option<String>,
    },
}

pub(crate) async fn run(command: DeadCommand, args: &ConfigArgs) -> anyhow::Result<()> {
    let config = config_command::load(args)?;
    config.require(&[Required::Nats])?;
    let bus = Bus::connect(role::broker("operator", &config))
        .await
        .context("the broker is not reachable")?;
    let done = execute(command, &bus, &config).await;
    bus.close().await;
    done
}

async fn execute(command: DeadCommand, bus: &Bus, config: &Config) -> anyhow::Result<()> {
    match command {
        DeadCommand::List { from, limit, open } => {
            let replays = known_replays(config).await;
            if open && replays.is_none() {
                bail!("which of them are open is in the ledger, and it cannot be asked");
            }
            list(bus, replays.as_ref(), (from, limit, open)).await
        }
        DeadCommand::Show { sequence, raw } => {
            let letter = find(bus, sequence).await?;
            show(&letter, known_replays(config).await.as_ref(), raw)
        }
        DeadCommand::Replay {
            sequences,
            all_with_reason,
        } => {
            // A replay must have its audit entry, so it needs the database.
            config.require(&[Required::Database])?;
            let store = ledger::connect(config).await?;
            let wanted = match all_with_reason {
                Some(reason) => Wanted::WithReason(reason),
                None => Wanted::These(sequences),
            };
            let done = replay(bus, &store, &wanted).await;
            store.close().await;
            done
        }
    }
}

async fn next(bus: &Bus, from: u64) -> anyhow::Result<Option<DeadLetter>> {
    let found = bus.dead_letter(from).await;
    found.context("the messages cannot be read")
}

async fn find(bus: &Bus, sequence: u64) -> anyhow::Result<DeadLetter> {
    match next(bus, sequence).await? {
        Some(letter) if letter.seq == sequence => Ok(letter),
        _ => bail!("there is no message {sequence}: see `baton dead list`"),
    }
}

/// Reads the earlier replays. The messages are listed even if they cannot be read.
async fn known_replays(config: &Config) -> Option<Replays> {
    if config.database.url.is_none() {
        eprintln!("without a database it is not known which of them were replayed");
        return None;
    }
    let read = async {
        let store = ledger::connect(config).await?;
        let read = Replays::read(&store).await;
        store.close().await;
        read
    };
    match read.await {
        Ok(replays) => Some(replays),
        Err(error) => {
            eprintln!("it is not known which of them were replayed: {error:#}");
            None
        }
    }
}

/// Lists messages from a sequence on, at most `limit`; with `open`, only those that no replay has
/// delivered.
async fn list(
    bus: &Bus,
    replays: Option<&Replays>,
    (mut from, limit, open): (u64, usize, bool),
) -> anyhow::Result<()> {
    let mut listed = 0;
    while listed < limit {
        let Some(letter) = next(bus, from).await? else {
            break;
        };
        from = letter.seq + 1;
        if open && replays.is_some_and(|replays| replays.is_taken(&letter)) {
            continue;
        }
        listed += 1;
        let run = letter
            .run
            .map_or_else(|| "-".to_owned(), |run| run.to_string());
        print(&format!(
            "{}  {}  {}  {run}  {}",
            letter.seq,
            letter.stored_at.to_rfc3339(),
            visible(&letter.subject),
            visible(&letter.reason)
        ))?;
        if let Some(told) = replays.and_then(|replays| replays.told(&letter)) {
            print(&format!("    {}", visible(&told)))?;
        }
    }
    Ok(())
}

fn show(letter: &DeadLetter, replays: Option<&Replays>, raw: bool) -> anyhow::Result<()> {
    let publisher = letter
        .publisher
        .map_or_else(|| "-".to_owned(), |key| key.to_string());
    eprintln!("subject    {}", visible(&letter.subject));
    eprintln!("stored     {}", letter.stored_at.to_rfc3339());
    eprintln!("publisher  {publisher}");
    eprintln!("reason     {}", visible(&letter.reason));
    if !letter.is_whole() {
        let kept = letter.payload.len();
        eprintln!("kept       the first {kept} of {} bytes", letter.length);
    }
    if let Some(told) = replays.and_then(|replays| replays.told(letter)) {
        eprintln!("{}", visible(&told));
    }
    let mut out = std::io::stdout().lock();
    if raw {
        out.write_all(&letter.payload)?;
    } else {
        out.write_all(visible_bytes(&letter.payload).as_bytes())?;
    }
    Ok(out.flush()?)
}

/// The messages to replay.
enum Wanted {
    These(Vec<u64>),
    WithReason(String),
}

async fn replay(bus: &Bus, store: &Store, wanted: &Wanted) -> anyhow::Result<()> {
    let mut left = 0_u32;
    match wanted {
        Wanted::These(sequences) => {
            for sequence in sequences {
                let letter = find(bus, *sequence).await?;
                left += u32::from(!replay_one(bus, store, &letter).await?);
            }
        }
        Wanted::WithReason(reason) => {
            let replays = Replays::read(store).await?;
            let mut from = 1;
            while let Some(letter) = next(bus, from).await? {
                from = letter.seq + 1;
                if !letter.reason.contains(reason) {
                    continue;
                }
                if let Some(told) = replays.told(&letter)
                    && replays.is_taken(&letter)
                {
                    print(&format!("{}  not again: {}", letter.seq, visible(&told)))?;
                } else {
                    left += u32::from(!replay_one(bus, store, &letter).await?);
                }
            }
        }
    }
    if left > 0 {
        bail!("{left} of them were not taken");
    }
    Ok(())
}

/// Replays one message, prints and records the result, and returns whether it was accepted.
async fn replay_one(bus: &Bus, store: &Store, letter: &DeadLetter) -> anyhow::Result<bool> {
    replays::begin(store, letter).await?;
    let (taken, what) = match bus.replay(letter).await {
        Ok(Replayed::Stored(seq)) => (true, format!("queued again as job {seq}")),
        Ok(Replayed::Answered(answer)) => said(&answer),
        Err(error) => (false, format!("not replayed: {error}")),
    };
    replays::end(store, letter, taken, &what).await?;
    print(&format!("{}  {}", letter.seq, visible(&what)))?;
    Ok(taken)
}

/// Reads an ingress's answer.
fn said(answer: &[u8]) -> (bool, String) {
    #[derive(Deserialize)]
    struct Answer {
        ok: bool,
        #[serde(default)]
        status: String,
        run_id: Option<String>,
        error: Option<Refusal>,
    }
    #[derive(Deserialize)]
    struct Refusal {
        code: String,
        message: String,
    }

    match serde_json::from_slice::<Answer>(answer) {
        Ok(Answer {
            ok: true,
            status,
            run_id,
            ..
        }) => {
            let run = run_id.unwrap_or_default();
            (true, format!("accepted: run {run} is {status}"))
        }
        Ok(Answer {
            error: Some(Refusal { code, message }),
            ..
        }) => (false, format!("refused: {code}: {message}")),
        Ok(_) | Err(_) => (false, "no readable answer".to_owned()),
    }
}
