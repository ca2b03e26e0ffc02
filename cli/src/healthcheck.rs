//! `baton healthcheck`: asks a role whether it is ready, for containers without a shell.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

#[derive(Debug, Args)]
pub(crate) struct HealthcheckArgs {
    /// The role's admin address
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9464")]
    pub(crate) admin: SocketAddr,
}

const TIMEOUT: Duration = Duration::from_secs(4);

pub(crate) async fn run(args: &HealthcheckArgs) -> anyhow::Result<()> {
    ask_ready(args.admin).await
}

/// Succeeds if the role with this admin address is ready; the error has the reason if not.
pub(crate) async fn ask_ready(admin: SocketAddr) -> anyhow::Result<()> {
    let refusal = ask(admin, "/readyz").await?;
    refusal.map_or(Ok(()), |body| bail!("not ready: {body}"))
}

/// Succeeds if the role with this admin address can still work; the error has the reason if not.
pub(crate) async fn ask_alive(admin: SocketAddr) -> anyhow::Result<()> {
    let refusal = ask(admin, "/livez").await?;
    refusal.map_or(Ok(()), |body| bail!("not alive: {body}"))
}

/// Returns the body of the answer if its status is not 200.
async fn ask(admin: SocketAddr, path: &str) -> anyhow::Result<Option<String>> {
    let answer = tokio::time::timeout(TIMEOUT, exchange(admin, path))
        .await
        .context("no answer in time")??;
    // `HTTP/1.1 200 OK`
    if answer.split_whitespace().nth(1) == Some("200") {
        return Ok(None);
    }
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok(Some(body.trim().to_owned()))
}

async fn exchange(admin: SocketAddr, path: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(admin)
        .await
        .with_context(|| format!("nothing answers at {admin}"))?;
    stream
        .write_all(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes())
        .await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}
