//! Measures the time that authentication and the rate limit add to a request.
//!
//! Each client sends requests in turn with and without the guard, on one connection, so that the
//! load of the machine affects both alike; the difference of the medians is the added time. All
//! these requests are for things that do not exist: a 404 is the cheapest answer of an ingress, and
//! the same with and without.

use std::time::Instant;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use futures_util::future::try_join_all;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpStream;
use tokio_util::task::TaskTracker;

use crate::client::Client;
use crate::samples::Samples;

/// A path without a route, so that no credential is checked.
const NOWHERE: &str = "/v1/nowhere";
/// A run id that cannot exist: an authenticated caller gets a 404 without a query to the ledger.
const NO_RUN: &str = "/v1/runs/none";
/// Far above the number of requests here, so that none is refused.
const LIMIT: u32 = 1_000_000;
/// Callers, or clients of one caller, at once.
const AT_ONCE: usize = 8;
/// Pairs before the measurement, which fill connections, caches and pools.
const WARM_UP: usize = 200;

/// The same requests without and with the measured guard.
#[derive(Debug, Default)]
pub struct Pair {
    /// Without it.
    pub without: Samples,
    /// With it.
    pub with: Samples,
}

/// The cost of each guard.
#[derive(Debug, Default)]
pub struct Guards {
    /// Authentication with a key that the ingress has cached.
    pub authentication: Pair,
    /// A rate limit over the broker, one request at a time.
    pub rate: Pair,
    /// The same, by [`AT_ONCE`] callers at once, each with a limit of its own.
    pub rate_of_many: Pair,
    /// The same, by as many clients of one caller.
    pub rate_of_one: Pair,
}

/// Measures an ingress with `pairs` of requests for each client.
pub async fn measure(base_url: &str, api_key: &str, pairs: usize) -> anyhow::Result<Guards> {
    let rest = base_url
        .strip_prefix("http://")
        .context("the bench speaks plain HTTP")?;
    let authority = rest.split('/').next().unwrap_or(rest);
    let owner = Client::new(authority.parse()?, api_key);
    let mut limited = Vec::new();
    for n in 0..AT_ONCE {
        let body = json!({"name": format!("bench {n}"), "limits": {"per_minute": LIMIT}});
        let made = owner.post("/v1/api-keys", &body).await?.json()?;
        let key = made["key"].as_str().context("no key was made")?;
        limited.push(key.to_owned());
    }
    let nobody = Ask {
        path: NOWHERE,
        key: None,
    };
    let known = |key: &str| Ask {
        path: NO_RUN,
        key: Some(key.to_owned()),
    };
    let rate = |key: &String| (known(api_key), known(key));
    let one = &limited[0];
    let run = async |asks| together(authority, asks, pairs).await;
    Ok(Guards {
        authentication: run(vec![(nobody, known(api_key))]).await?,
        rate: run(vec![rate(one)]).await?,
        rate_of_many: run(limited.iter().map(rate).collect()).await?,
        rate_of_one: run(vec![rate(one); AT_ONCE]).await?,
    })
}

/// One kind of request.
#[derive(Debug, Clone)]
struct Ask {
    path: &'static str,
    key: Option<String>,
}

/// Runs a client for each pair of requests, all at once.
async fn together(authority: &str, asks: Vec<(Ask, Ask)>, pairs: usize) -> anyhow::Result<Pair> {
    let clients = asks
        .iter()
        .map(|(without, with)| client(authority, without, with, pairs));
    let mut all = Pair::default();
    for pair in try_join_all(clients).await? {
        all.without.merge(pair.without);
        all.with.merge(pair.with);
    }
    Ok(all)
}

async fn client(authority: &str, without: &Ask, with: &Ask, pairs: usize) -> anyhow::Result<Pair> {
    let stream = TcpStream::connect(authority).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
    TaskTracker::new().spawn(connection);
    let mut pair = Pair::default();
    for n in 0..WARM_UP + pairs {
        let first = ask(&mut sender, authority, without).await?;
        let second = ask(&mut sender, authority, with).await?;
        if n >= WARM_UP {
            pair.without.push(first);
            pair.with.push(second);
        }
    }
    Ok(pair)
}

async fn ask(
    sender: &mut SendRequest<Full<Bytes>>,
    authority: &str,
    ask: &Ask,
) -> anyhow::Result<std::time::Duration> {
    let mut request = Request::get(ask.path).header(header::HOST, authority);
    if let Some(key) = &ask.key {
        request = request.header(header::AUTHORIZATION, format!("Bearer {key}"));
    }
    let request = request.body(Full::new(Bytes::new()))?;
    sender.ready().await?;
    let sent = Instant::now();
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    let body = answer.into_body().collect().await?.to_bytes();
    let took = sent.elapsed();
    ensure!(
        status == StatusCode::NOT_FOUND,
        "{status}: {}",
        String::from_utf8_lossy(&body)
    );
    Ok(took)
}
