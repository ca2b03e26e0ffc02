//! Programs at a cluster: a program connects to another server than the ingress does.

use std::net::TcpListener;

use async_nats::ConnectOptions;
use baton_devstack::test_support::test_nats_options;
use baton_devstack::{NatsConfig, NatsOptions, NatsServer};
use baton_nats::accounts::inbox_prefix;
use baton_nats::{AccountsConf, Auth, BusOptions, CalloutBus, Issuer, Program, SystemBus};

use crate::permissions::Stranger;
use crate::programs::{HOUR, all, now};
use crate::{soon, tenant, until};

/// Two servers of one cluster.
async fn start(accounts: &AccountsConf) -> [NatsServer; 2] {
    let free = || TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = [free(), free()];
    let [one, two] = taken.map(|listener| listener.local_addr().unwrap());
    let start = async |name: &str, own, other| {
        let cluster = format!(
            "server_name: {name}\ncluster {{ name: both, listen: \"{own}\", \
             routes: [\"nats://{other}\"], no_advertise: true }}\n"
        );
        let options = NatsOptions {
            config: NatsConfig::Own {
                extra: cluster + &accounts.text(),
            },
            ..test_nats_options().await.unwrap()
        };
        NatsServer::start(options).await.unwrap()
    };
    let (one, two) = tokio::join!(start("one", one, two), start("two", two, one));
    [one, two]
}

#[tokio::test]
async fn a_program_at_another_server_is_let_in_and_put_out() {
    let issuer = Issuer::generate();
    let accounts = AccountsConf {
        issuer: issuer.public_key(),
        xkey: None,
        password: "secret".into(),
        unlimited: Vec::new(),
    };
    let [near, far] = start(&accounts).await;
    let options = |user: &str| BusOptions {
        auth: Auth::UserPassword {
            user: user.into(),
            password: accounts.password_of(user),
        },
        inbox_prefix: Some(inbox_prefix(user)),
        ..BusOptions::new(near.url(), user)
    };
    let callout = CalloutBus::connect(options("callout")).await.unwrap();
    let mut requests = callout.connect_requests(None).await.unwrap();
    let system = SystemBus::connect(options("system")).await.unwrap();
    let tenant = tenant();
    let reach = all(tenant);
    let key = reach.key.as_uuid();
    let connect = async |server: &NatsServer| {
        let options = ConnectOptions::with_token("key".into())
            .custom_inbox_prefix(format!("_INBOX_{tenant}"))
            .retry_on_initial_connect();
        Stranger::connect(options, server.url()).await
    };
    let admit = async |request| {
        let program = Program {
            reach,
            until: now() + HOUR,
        };
        callout
            .admit(&request, &program, &issuer, now())
            .await
            .unwrap();
    };
    let mut programs = [connect(&near).await, connect(&far).await];
    // The routes between the servers may come up after the first question.
    soon(async {
        let connected = async {
            for program in &programs {
                until(async || program.client.server_info().server_id.len() > 1).await;
                program.client.flush().await.unwrap();
            }
        };
        tokio::select! {
            () = connected => {}
            () = async {
                while let Some(request) = requests.next(now).await {
                    admit(request.unwrap()).await;
                }
            } => {}
        }
    })
    .await;
    let closed = soon(async {
        let mut closed = 0;
        while closed < 2 {
            if let Ok(now) = system.close_connections(key).await {
                closed += now.connections;
            }
        }
        closed
    });
    assert_eq!(closed.await, 2);
    for program in &mut programs {
        program.until_disconnected().await;
    }
}
