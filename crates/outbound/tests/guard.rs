//! The guard in front of real servers: a hostile name server, every spelling of an address, redirects.
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use baton_outbound::{Client, Guard, Policy, Refused, SendError};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Method, Url};
use tokio::net::{TcpListener, UdpSocket};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

const CONNECT: Duration = Duration::from_secs(5);
/// The address that the policy of these tests allows, in place of a public one.
const ALLOWED: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// An address of the network behind the guard.
const INTERNAL: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// A web server that counts its requests, and answers `/away/…` with a redirect to the rest.
struct Web {
    port: u16,
    requests: Arc<AtomicUsize>,
    _stop: DropGuard,
}

impl Web {
    /// Serves on an address, at a port that is free there and on the internal one.
    fn serve(listener: TcpListener) -> Self {
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&requests);
        let answer = move |request: axum::extract::Request| {
            counted.fetch_add(1, Ordering::SeqCst);
            let target = request.uri().query().unwrap_or_default().to_owned();
            async move {
                let close = [("connection", "close")];
                if target.is_empty() {
                    (
                        axum::http::StatusCode::OK,
                        close,
                        [("x-none", String::new())],
                    )
                } else {
                    let location = [("location", target)];
                    (axum::http::StatusCode::FOUND, close, location)
                }
            }
        };
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        TaskTracker::new().spawn(async move {
            let app = axum::Router::new().fallback(answer);
            let serve = axum::serve(listener, app);
            let _ = serve
                .with_graceful_shutdown(stopped.cancelled_owned())
                .await;
        });
        Self {
            port,
            requests,
            _stop: stop.drop_guard(),
        }
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

/// An allowed server and an internal one on the same port.
async fn two_servers() -> (Web, Web) {
    loop {
        let allowed = TcpListener::bind((ALLOWED, 0)).await.unwrap();
        let port = allowed.local_addr().unwrap().port();
        if let Ok(internal) = TcpListener::bind((INTERNAL, port)).await {
            return (Web::serve(allowed), Web::serve(internal));
        }
    }
}

/// A name server that changes its answer at each question.
struct NameServer {
    address: SocketAddr,
    questions: Arc<AtomicUsize>,
    _stop: DropGuard,
}

impl NameServer {
    /// Answers the n-th question by the n-th list of addresses, and the last one from then on.
    async fn start(answers: Vec<Vec<Ipv4Addr>>) -> Self {
        let socket = UdpSocket::bind((ALLOWED, 0)).await.unwrap();
        let address = socket.local_addr().unwrap();
        let questions = Arc::new(AtomicUsize::new(0));
        let asked = Arc::clone(&questions);
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        TaskTracker::new().spawn(stopped.run_until_cancelled_owned(async move {
            let mut question = [0; 512];
            loop {
                let (length, from) = socket.recv_from(&mut question).await.unwrap();
                let turn = asked.fetch_add(1, Ordering::SeqCst);
                let addresses = &answers[turn.min(answers.len() - 1)];
                let mut answer = question[..length].to_vec();
                answer[2..4].copy_from_slice(&[0x81, 0x80]);
                answer[7] = u8::try_from(addresses.len()).unwrap();
                for address in addresses {
                    // The question's name; A, IN; a life of 0 s; four bytes.
                    answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
                    answer.extend(address.octets());
                }
                socket.send_to(&answer, from).await.unwrap();
            }
        }));
        Self {
            address,
            questions,
            _stop: stop.drop_guard(),
        }
    }

    fn questions(&self) -> usize {
        self.questions.load(Ordering::SeqCst)
    }
}

/// Asks a name server, without a cache.
struct Ask(SocketAddr);

impl Resolve for Ask {
    fn resolve(&self, name: Name) -> Resolving {
        let server = self.0;
        Box::pin(async move {
            let mut question = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
            for label in name.as_str().split('.') {
                question.push(u8::try_from(label.len())?);
                question.extend(label.as_bytes());
            }
            question.extend([0, 0, 1, 0, 1]);
            let socket = UdpSocket::bind((ALLOWED, 0)).await?;
            socket.send_to(&question, server).await?;
            let mut answer = [0; 512];
            let length = socket.recv(&mut answer).await?;
            let records = answer[question.len()..length].chunks_exact(16);
            let found: Vec<_> = records
                .map(|record| Ipv4Addr::new(record[12], record[13], record[14], record[15]))
                .map(|address| SocketAddr::new(IpAddr::V4(address), 0))
                .collect();
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

fn policy(port: u16) -> Policy {
    Policy {
        allow_networks: vec!["127.0.0.1/32".parse().unwrap()],
        ports: vec![80, port],
    }
}

fn client(port: u16, names: &NameServer) -> Client {
    let guard = Guard::with_lookup(policy(port), Arc::new(Ask(names.address)));
    Client::to_public(&guard, CONNECT).unwrap()
}

async fn get(client: &Client, url: &str) -> Result<reqwest::Response, SendError> {
    let url = Url::parse(url).unwrap();
    client.send(client.request(Method::GET, url)?).await
}

fn is_refused(sent: &Result<reqwest::Response, SendError>) -> bool {
    matches!(sent, Err(SendError::Refused(Refused::Address { .. })))
}

#[tokio::test]
async fn a_name_that_changes_its_mind_reaches_nothing_internal() {
    let (allowed, internal) = two_servers().await;
    let names = NameServer::start(vec![vec![ALLOWED], vec![INTERNAL]]).await;
    let client = client(allowed.port, &names);
    let url = format!("http://rebind.example:{}/", allowed.port);

    // One look-up: an implementation that checks by one and connects by another ends at the internal
    // server.
    let first = get(&client, &url).await;
    assert_eq!(first.unwrap().status(), 200);
    assert_eq!((names.questions(), allowed.requests()), (1, 1));

    // The server has closed the connection, so that the name is looked up again.
    let second = get(&client, &url).await;
    assert!(is_refused(&second), "{second:?}");
    assert_eq!((names.questions(), internal.requests()), (2, 0));
}

#[tokio::test]
async fn a_name_with_one_internal_address_among_others_is_refused() {
    let (allowed, internal) = two_servers().await;
    let names = NameServer::start(vec![vec![ALLOWED, INTERNAL], vec![INTERNAL, ALLOWED]]).await;
    let client = client(allowed.port, &names);
    for _ in 0..2 {
        let sent = get(&client, &format!("http://mixed.example:{}/", allowed.port)).await;
        assert!(is_refused(&sent), "{sent:?}");
    }
    assert_eq!((allowed.requests(), internal.requests()), (0, 0));
}

#[tokio::test]
async fn a_name_without_an_address_is_refused() {
    let names = NameServer::start(vec![vec![]]).await;
    let sent = get(&client(80, &names), "http://empty.example/").await;
    let refused = matches!(sent, Err(SendError::Refused(Refused::NoAddress(_))));
    assert!(refused, "{sent:?}");
}

#[tokio::test]
async fn every_spelling_of_an_internal_address_is_refused() {
    let (allowed, internal) = two_servers().await;
    let names = NameServer::start(vec![vec![ALLOWED]]).await;
    let client = client(allowed.port, &names);
    for host in [
        "127.0.0.2",
        "127.0.0.2.",
        "127.2",
        "127.0.2",
        "2130706434",
        "0x7f000002",
        "0x7F.0.0.0x2",
        "0177.0.0.2",
        "017700000002",
        "%31%32%37.0.0.2",
        "１２７.０.０.２",
        "127。0。0。2",
        "①②⑦.0.0.2",
        "0.0.0.0",
        "0",
        "169.254.169.254",
        "10.0.0.1",
        "100.64.0.1",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.2]",
        "[::ffff:7f00:2]",
        "[0:0:0:0:0:ffff:127.0.0.2]",
        "[::127.0.0.2]",
        "[64:ff9b::127.0.0.2]",
        "[64:ff9b:1::7f00:2]",
        "[2002:7f00:2::]",
        "[fe80::1]",
        "[fd00:ec2::254]",
        "[ff02::1]",
    ] {
        let sent = get(&client, &format!("http://{host}:{}/", allowed.port)).await;
        assert!(is_refused(&sent), "{host}: {sent:?}");
    }
    assert_eq!((names.questions(), internal.requests()), (0, 0));
}

#[tokio::test]
async fn an_allowed_network_is_reached() {
    let (allowed, _internal) = two_servers().await;
    let names = NameServer::start(vec![vec![ALLOWED]]).await;
    let client = client(allowed.port, &names);
    for host in ["127.0.0.1", "[::ffff:127.0.0.1]", "named.example"] {
        let sent = get(&client, &format!("http://{host}:{}/", allowed.port)).await;
        assert_eq!(sent.unwrap().status(), 200, "{host}");
    }
}

#[tokio::test]
async fn a_redirect_to_an_internal_address_is_not_followed() {
    let (allowed, internal) = two_servers().await;
    let names = NameServer::start(vec![vec![ALLOWED]]).await;
    let client = client(allowed.port, &names);
    let target = format!("http://127.0.0.2:{}/", internal.port);
    let sent = get(
        &client,
        &format!("http://127.0.0.1:{}/?{target}", allowed.port),
    )
    .await;
    let response = sent.unwrap();
    assert_eq!(response.status(), 302);
    let location = response.headers()["location"].to_str().unwrap();
    let followed = get(&client, location).await;
    assert!(is_refused(&followed), "{followed:?}");
    assert_eq!(internal.requests(), 0);
}

#[tokio::test]
async fn ports_schemes_and_credentials_are_checked() {
    let names = NameServer::start(vec![vec![ALLOWED]]).await;
    let client = client(80, &names);
    for (url, refused) in [
        ("http://a.example:22/", Refused::Port(22)),
        ("https://a.example/", Refused::Port(443)),
        ("http://u@a.example/", Refused::Credentials),
        ("http://:p@a.example/", Refused::Credentials),
        ("ftp://a.example:80/", Refused::Scheme),
        ("file:///etc/passwd", Refused::Scheme),
    ] {
        match get(&client, url).await {
            Err(SendError::Refused(why)) => assert_eq!(why, refused, "{url}"),
            sent => panic!("{url}: {sent:?}"),
        }
    }
    assert_eq!(names.questions(), 0);
}

#[tokio::test]
async fn the_operators_origin_may_be_internal_and_nothing_else_is_reached_by_its_client() {
    let (allowed, internal) = two_servers().await;
    let names = NameServer::start(vec![vec![INTERNAL]]).await;
    let guard = Guard::with_lookup(Policy::default(), Arc::new(Ask(names.address)));
    let base = format!("http://tools.example:{}/a", internal.port);
    let client = Client::to_origin(&guard, &Url::parse(&base).unwrap(), CONNECT).unwrap();
    assert_eq!(get(&client, &base).await.unwrap().status(), 200);
    assert_eq!(internal.requests(), 1);
    for other in [
        format!("http://127.0.0.1:{}/", allowed.port),
        format!("https://tools.example:{}/", internal.port),
        "http://tools.example/".to_owned(),
        format!("http://other.example:{}/", internal.port),
    ] {
        let sent = get(&client, &other).await;
        let refused = matches!(sent, Err(SendError::Refused(Refused::Origin(_))));
        assert!(refused, "{other}: {sent:?}");
    }
    assert_eq!((allowed.requests(), internal.requests()), (0, 1));
}

#[tokio::test]
async fn an_operators_name_cannot_turn_to_a_metadata_service() {
    let metadata = Ipv4Addr::new(169, 254, 169, 254);
    let names = NameServer::start(vec![vec![metadata]]).await;
    let lookup: Arc<dyn Resolve> = Arc::new(Ask(names.address));
    let wide = Policy {
        allow_networks: vec!["169.254.0.0/16".parse().unwrap()],
        ..Policy::default()
    };
    let url = Url::parse("http://tools.example/").unwrap();
    for policy in [Policy::default(), wide] {
        let guard = Guard::with_lookup(policy, Arc::clone(&lookup));
        for client in [
            Client::to_origin(&guard, &url, CONNECT).unwrap(),
            Client::to_public(&guard, CONNECT).unwrap(),
        ] {
            let sent = client
                .send(client.request(Method::GET, url.clone()).unwrap())
                .await;
            assert!(is_refused(&sent), "{sent:?}");
        }
    }
}

#[tokio::test]
async fn refusals_do_not_name_the_address() {
    let names = NameServer::start(vec![vec![INTERNAL]]).await;
    let sent = get(&client(80, &names), "http://probe.example/").await;
    let shown = sent.unwrap_err().to_string();
    assert_eq!(shown, "`probe.example` has an address that is not public");
}
