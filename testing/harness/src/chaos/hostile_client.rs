//! A hostile client: it speaks HTTP by hand, and breaks its rules.
//!
//! As with [`super::hostile_program`], nothing is expected of the answers.

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::outside::{Prompt, SMUGGLED};
use super::record::Recorder;
use crate::checker::What;

/// Limit of one attack.
const LIMIT: Duration = Duration::from_secs(8);

/// The kinds of attack; each is counted by its name.
pub const ATTACKS: [&str; 9] = [
    "client: unfinished bodies",
    "client: a body of many keys",
    "client: smuggled fields",
    "client: half-open connections",
    "client: bytes behind a request",
    "client: pipelining",
    "client: answers never read",
    "client: two lengths",
    "client: no protocol",
];

/// A hostile client.
#[derive(Debug)]
pub struct HostileClient {
    /// Addresses of the ingresses.
    pub ingresses: Vec<SocketAddr>,
    /// A key of a tenant without other clients.
    pub secret: String,
    /// The recorder of attacks.
    pub recorder: Arc<Recorder>,
}

impl HostileClient {
    /// Attacks until it is stopped.
    pub async fn rage(self, seed: u64, stop: CancellationToken) {
        let mut random = StdRng::seed_from_u64(seed);
        let raging = async {
            loop {
                let attack = random.random_range(0..ATTACKS.len());
                let ingress = self.ingresses[random.random_range(0..self.ingresses.len())];
                let attacking = self.attack(attack, ingress, &mut random);
                if let Ok(Ok(())) = timeout(LIMIT, attacking).await {
                    let kind = ATTACKS[attack].to_owned();
                    self.recorder.note(What::Attack { kind });
                }
                let pause = random.random_range(200..1_200);
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
        };
        stop.run_until_cancelled(raging).await;
    }

    async fn attack(
        &self,
        attack: usize,
        ingress: SocketAddr,
        random: &mut StdRng,
    ) -> io::Result<()> {
        match attack {
            0 => self.leave_bodies_unfinished(ingress).await,
            1 => self.send_many_keys(ingress, random).await,
            2 => self.smuggle(ingress, random).await,
            3 => half_open(ingress).await,
            4 => self.say_more(ingress, random).await,
            5 => self.pipeline(ingress, true).await,
            6 => self.pipeline(ingress, false).await,
            7 => self.give_two_lengths(ingress).await,
            _ => babble(ingress, random).await,
        }
    }

    fn head(&self, method: &str, path: &str, more: &str) -> String {
        format!(
            "{method} {path} HTTP/1.1\r\nhost: baton\r\nauthorization: Bearer {}\r\n\
             content-type: application/json\r\n{more}\r\n",
            self.secret
        )
    }

    async fn leave_bodies_unfinished(&self, ingress: SocketAddr) -> io::Result<()> {
        const CONNECTIONS: usize = 8;

        let mut held = Vec::new();
        for _ in 0..CONNECTIONS {
            let mut stream = TcpStream::connect(ingress).await?;
            let head = self.head("POST", "/v1/runs", "content-length: 8000000\r\n");
            stream.write_all(head.as_bytes()).await?;
            // The ingress may have answered already, and closed the connection.
            let _refused = stream.write_all(&vec![b' '; 200_000]).await;
            held.push(stream);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok(())
    }

    /// Sends ten mebibytes that are small as text, and large as a tree of values.
    async fn send_many_keys(&self, ingress: SocketAddr, random: &mut StdRng) -> io::Result<()> {
        const LENGTH: usize = 10 << 20;

        let field = ["x", "params", "metadata", "tools"][random.random_range(0..4)];
        let mut body = format!("{{\"model\":\"chaos\",\"input\":\"{field}\",\"{field}\":{{\"y\":[");
        let item = "{\"\":0},";
        body.reserve(LENGTH);
        while body.len() < LENGTH {
            body.push_str(item);
        }
        body.push_str("0]}}");
        self.post(ingress, "/v1/runs", &body).await
    }

    /// Sends fields that would choose another model, endpoint or credential if they were passed on.
    async fn smuggle(&self, ingress: SocketAddr, random: &mut StdRng) -> io::Result<()> {
        let prompt = Prompt {
            id: random.random_range(1 << 40..1 << 50),
            words: 3,
            gap_ms: 5,
            tool_turns: 0,
        };
        let mut body = json!({
            "model": "chaos", "messages": [{"role": "user", "content": prompt.text()}],
        });
        let field = SMUGGLED[random.random_range(0..SMUGGLED.len())];
        body[field] = match field {
            "extra_body" => json!({"model": "dear", "n": 7}),
            "models" | "fallbacks" => json!(["dear"]),
            _ => json!("http://127.0.0.1:9/"),
        };
        self.post(ingress, "/v1/chat/completions", &body.to_string())
            .await
    }

    async fn post(&self, ingress: SocketAddr, path: &str, body: &str) -> io::Result<()> {
        let mut stream = TcpStream::connect(ingress).await?;
        let more = format!("content-length: {}\r\nconnection: close\r\n", body.len());
        let head = self.head("POST", path, &more);
        stream.write_all(head.as_bytes()).await?;
        let _refused = stream.write_all(body.as_bytes()).await;
        read_rest(&mut stream).await
    }

    async fn say_more(&self, ingress: SocketAddr, random: &mut StdRng) -> io::Result<()> {
        let prompt = Prompt {
            id: random.random_range(1 << 40..1 << 50),
            words: 20,
            gap_ms: 20,
            tool_turns: 0,
        };
        let body = json!({
            "model": "chaos", "stream": true,
            "messages": [{"role": "user", "content": prompt.text()}],
        })
        .to_string();
        let more = format!("content-length: {}\r\n", body.len());
        let head = self.head("POST", "/v1/chat/completions", &more);
        let mut stream = TcpStream::connect(ingress).await?;
        let said = format!("{head}{body}\r\n\0\0GET / HTTP/9\r\n{}", "x".repeat(20_000));
        stream.write_all(said.as_bytes()).await?;
        tokio::time::sleep(Duration::from_millis(200)).await;
        Ok(())
    }

    async fn pipeline(&self, ingress: SocketAddr, reads: bool) -> io::Result<()> {
        const REQUESTS: usize = 100;

        let socket = TcpSocket::new_v4()?;
        if !reads {
            socket.set_recv_buffer_size(4_096)?;
        }
        let mut stream = socket.connect(ingress).await?;
        let mut said = String::new();
        for _ in 0..REQUESTS {
            said.push_str(&self.head("GET", "/v1/runs?limit=100", ""));
        }
        said.push_str(&self.head("GET", "/v1/models", "connection: close\r\n"));
        if reads {
            stream.write_all(said.as_bytes()).await?;
            read_rest(&mut stream).await
        } else {
            let saying = stream.write_all(said.as_bytes());
            let _stuck = timeout(Duration::from_secs(2), saying).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok(())
        }
    }

    async fn give_two_lengths(&self, ingress: SocketAddr) -> io::Result<()> {
        let hidden = self.head("GET", "/v1/api-keys", "");
        for more in [
            "content-length: 4\r\ntransfer-encoding: chunked\r\n",
            "content-length: 4\r\ncontent-length: 400\r\n",
            "transfer-encoding: chunked, identity\r\n",
            "content-length: +4\r\n",
        ] {
            let mut stream = TcpStream::connect(ingress).await?;
            let mut said = self.head("POST", "/v1/runs", more);
            // Writing to a string cannot fail.
            let _ = write!(said, "0\r\n\r\n{hidden}");
            stream.write_all(said.as_bytes()).await?;
            stream.shutdown().await?;
            read_rest(&mut stream).await?;
        }
        Ok(())
    }
}

async fn half_open(ingress: SocketAddr) -> io::Result<()> {
    const CONNECTIONS: usize = 30;

    let mut held = Vec::new();
    for connection in 0..CONNECTIONS {
        let mut stream = TcpStream::connect(ingress).await?;
        if connection % 2 == 0 {
            stream
                .write_all(b"POST /v1/runs HTTP/1.1\r\nhost: b")
                .await?;
        }
        held.push(stream);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    Ok(())
}

async fn babble(ingress: SocketAddr, random: &mut StdRng) -> io::Result<()> {
    let mut stream = TcpStream::connect(ingress).await?;
    let bytes: Vec<u8> = (0..20_000).map(|_| random.random()).collect();
    let _refused = stream.write_all(&bytes).await;
    let _refused = stream.write_all(b"\r\n\r\n").await;
    read_rest(&mut stream).await
}

/// Reads until the ingress closes the connection.
async fn read_rest(stream: &mut TcpStream) -> io::Result<()> {
    let mut piece = vec![0; 1 << 14];
    loop {
        match stream.read(&mut piece).await {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}
