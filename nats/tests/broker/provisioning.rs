use async_nats::jetstream;
use baton_devstack::test_support::test_nats;
use baton_nats::{Change, ProvisionError, StreamOptions, provision, restore_missing, streams};
use std::time::Duration;

use crate::{connect, options};

#[tokio::test]
async fn provisioning_creates_all_and_repeating_it_changes_nothing() {
    let server = test_nats().await.unwrap();
    let bus = connect(&server).await;
    let changes = provision(&bus, &options()).await.unwrap();
    assert_eq!(
        changes.iter().map(ToString::to_string).collect::<Vec<_>>(),
        [
            "created stream JOBS",
            "created stream EVENTS",
            "created stream DEAD",
            "created stream LIMITS",
            "created consumer worker-interactive of stream JOBS",
            "created consumer worker-background of stream JOBS",
        ]
    );
    assert_eq!(provision(&bus, &options()).await.unwrap(), []);
    assert_eq!(restore_missing(&bus, &options()).await.unwrap(), []);
}

#[tokio::test]
async fn the_default_options_are_taken_by_a_server_as_they_are() {
    let server = test_nats().await.unwrap();
    let bus = connect(&server).await;
    provision(&bus, &StreamOptions::default()).await.unwrap();
    assert_eq!(
        provision(&bus, &StreamOptions::default()).await.unwrap(),
        []
    );
}

#[tokio::test]
async fn processes_that_provision_at_once_do_not_disturb_each_other() {
    let server = test_nats().await.unwrap();
    let (one, two) = (connect(&server).await, connect(&server).await);
    let options = options();
    let (first, second) = tokio::join!(provision(&one, &options), provision(&two, &options));
    first.unwrap();
    second.unwrap();
    assert_eq!(provision(&one, &options).await.unwrap(), []);
}

#[tokio::test]
async fn a_difference_is_refused_with_its_name_and_left_alone() {
    let server = test_nats().await.unwrap();
    let bus = connect(&server).await;
    provision(&bus, &options()).await.unwrap();
    let other = StreamOptions {
        event_retention: Duration::from_hours(1),
        ack_wait: Duration::from_mins(1),
        ..options()
    };

    let error = provision(&bus, &other).await.unwrap_err();
    let ProvisionError::Drift(differences) = &error else {
        panic!("{error}")
    };
    assert_eq!(differences.len(), 3);
    let shown = error.to_string();
    for line in [
        "stream EVENTS: max_age is 86400000000000, should be 3600000000000",
        "consumer worker-interactive: ack_wait is 2000000000, should be 60000000000",
        "consumer worker-background: ack_wait is 2000000000, should be 60000000000",
    ] {
        assert!(shown.contains(line), "{shown}");
    }
    assert_eq!(restore_missing(&bus, &other).await.unwrap(), []);
    assert_eq!(provision(&bus, &options()).await.unwrap(), []);
}

#[tokio::test]
async fn what_is_missing_is_made_again() {
    let server = test_nats().await.unwrap();
    let bus = connect(&server).await;
    provision(&bus, &options()).await.unwrap();
    let context = jetstream::new(async_nats::connect(server.url()).await.unwrap());
    context
        .delete_consumer_from_stream("worker-background", "JOBS")
        .await
        .unwrap();
    context.delete_stream("EVENTS").await.unwrap();

    let changes = restore_missing(&bus, &options()).await.unwrap();
    assert_eq!(
        changes,
        [
            Change::CreatedStream("EVENTS".into()),
            Change::CreatedConsumer("worker-background".into())
        ]
    );
    assert_eq!(provision(&bus, &options()).await.unwrap(), []);
}

#[test]
fn the_golden_definitions_are_those_of_the_code() {
    use async_nats::jetstream::consumer::IntoConsumerConfig;

    let options = StreamOptions::default();
    let definitions = serde_json::json!({
        "streams": streams::streams(&options),
        "consumers": streams::consumers(&options).map(IntoConsumerConfig::into_consumer_config),
    });
    let written = format!("{definitions:#}\n");
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/streams.json");
    if std::env::var_os("BATON_BLESS").is_some() {
        std::fs::write(path, &written).unwrap();
    }
    let golden = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(
        written, golden,
        "if that is meant, run once with BATON_BLESS=1: deployed streams will count as drifted"
    );
}
