//! Runs a command with private servers around it, which stop when it ends:
//! `with-devstack --postgres --nats -- cargo nextest run`.

use std::os::unix::process::ExitStatusExt;
use std::process::{ExitCode, ExitStatus};

use anyhow::Context;
use baton_devstack::test_support::{TEST_NATS_BIN, TEST_NATS_URL, TEST_POSTGRES_URL};
use baton_devstack::{DevStack, DevStackOptions, Progress};
use clap::Parser;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

/// Run a command with a private PostgreSQL and nats-server around it.
///
/// The command finds them in BATON_TEST_POSTGRES_URL (the superuser's address), BATON_TEST_NATS_URL
/// and BATON_TEST_NATS_BIN (the program). Both are fast rather than durable, and leave nothing
/// behind.
#[derive(Parser)]
struct Arguments {
    /// Start a PostgreSQL
    #[arg(long)]
    postgres: bool,
    /// Start a nats-server
    #[arg(long)]
    nats: bool,
    /// The command and its arguments
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("with-devstack: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    // Handled from the start, because Ctrl-C reaches the command by itself and this process must
    // outlast it.
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot handle SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot handle SIGTERM")?;

    let mut options = DevStackOptions::ephemeral(Progress::Stderr);
    options.postgres.take_if(|_| !arguments.postgres);
    options.nats.take_if(|_| !arguments.nats);
    let stack = tokio::select! {
        started = DevStack::start(options) => started?,
        _ = interrupt.recv() => return Ok(killed_by(Signal::SIGINT)),
        _ = terminate.recv() => return Ok(killed_by(Signal::SIGTERM)),
    };
    let mut child = command(&arguments.command, &stack)?;
    let status = loop {
        tokio::select! {
            ended = child.wait() => break ended,
            _ = interrupt.recv() => {}
            _ = terminate.recv() => forward(Signal::SIGTERM, &child),
        }
    };
    stack.stop().await?;
    Ok(exit_code(status.context("cannot wait for the command")?))
}

fn command(words: &[String], stack: &DevStack) -> anyhow::Result<Child> {
    let (program, rest) = words.split_first().context("no command was given")?;
    let mut command = Command::new(program);
    command.args(rest);
    if let Some(postgres) = &stack.postgres {
        command.env(TEST_POSTGRES_URL, postgres.superuser_url());
    }
    if let Some(nats) = &stack.nats {
        command
            .env(TEST_NATS_URL, nats.url())
            .env(TEST_NATS_BIN, &nats.binary().path);
    }
    command
        .spawn()
        .with_context(|| format!("cannot run {program}"))
}

fn forward(signal: Signal, child: &Child) {
    if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
        // The only possible failure is that it is ending just now.
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

/// Returns the command's own code, or, as shells do, 128 plus the number of the signal that ended
/// it.
fn exit_code(status: ExitStatus) -> ExitCode {
    let number = status.code().or_else(|| Some(128 + status.signal()?));
    ExitCode::from(
        number
            .and_then(|number| u8::try_from(number).ok())
            .unwrap_or(1),
    )
}

fn killed_by(signal: Signal) -> ExitCode {
    u8::try_from(128 + signal as i32).map_or(ExitCode::FAILURE, ExitCode::from)
}
