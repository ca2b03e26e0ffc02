//! Tests several limiters, as of several ingresses, against a real broker, with a clock that only
//! moves by hand.

use baton_devstack::NatsServer;
use baton_devstack::test_support::test_nats;
use baton_nats::{BusOptions, StreamOptions, provision};
use baton_protocol::TenantId;
use baton_service::FixedClock;
use chrono::DateTime;
use futures_util::future::join_all;
use metrics_exporter_prometheus::PrometheusBuilder;
use uuid::Uuid;

use super::*;

const REPLICAS: usize = 4;
/// A time-out far longer than any step takes, however busy the machine is.
const LONG: Duration = Duration::from_secs(20);

struct Fleet {
    server: NatsServer,
    clock: Arc<FixedClock>,
    limiters: Vec<RateLimiter>,
}

impl Fleet {
    async fn start() -> Self {
        let server = test_nats().await.unwrap();
        let options = StreamOptions {
            jobs_max_bytes: 1 << 20,
            events_max_bytes: 1 << 20,
            dead_max_bytes: 1 << 20,
            ..StreamOptions::default()
        };
        provision(&connect(&server).await, &options).await.unwrap();
        let start = DateTime::from_timestamp_millis(1_780_000_000_000).unwrap();
        let clock = Arc::new(FixedClock::at(start));
        let mut limiters = Vec::new();
        for _ in 0..REPLICAS {
            let bus = connect(&server).await;
            let shared: SharedClock = Arc::<FixedClock>::clone(&clock);
            limiters.push(RateLimiter::new(bus, shared, LONG));
        }
        Self {
            server,
            clock,
            limiters,
        }
    }

    /// Asks each limiter `each` times, all at once, and returns the number of admissions.
    async fn hammer(&self, who: Limited, limits: RateLimits, each: usize) -> u32 {
        let asked = self.limiters.iter().flat_map(|limiter| {
            (0..each).map(move |_| async move { limiter.ask(who, limits).await.unwrap() })
        });
        let decisions = tokio::time::timeout(LONG, join_all(asked)).await.unwrap();
        let admitted = decisions.iter().filter(|decision| decision.admitted);
        u32::try_from(admitted.count()).unwrap()
    }

    fn is_alone(&self) -> bool {
        self.limiters.iter().any(RateLimiter::is_alone)
    }
}

async fn connect(server: &NatsServer) -> Bus {
    Bus::connect(BusOptions::new(server.url(), "test"))
        .await
        .unwrap()
}

fn somebody() -> Limited {
    Limited::Caller {
        tenant: TenantId::from_uuid(Uuid::new_v4()),
        caller: Uuid::new_v4(),
    }
}

const fn per_minute(limit: u32) -> RateLimits {
    RateLimits {
        per_minute: limit,
        per_day: 0,
    }
}

#[tokio::test]
async fn four_ingresses_together_admit_the_limit_in_any_minute_and_no_less() {
    let fleet = Fleet::start().await;
    let (who, limit) = (somebody(), 300);
    let mut admitted: Vec<(i64, u32)> = Vec::new();
    // Each step takes ten seconds, three minutes in total: bursts, pauses and a steady stream.
    let steps = [
        20, 0, 50, 1, 200, 3, 0, 0, 7, 90, 40, 40, 2, 2, 2, 80, 0, 120,
    ];
    for (step, each) in steps.into_iter().enumerate() {
        for _ in 0..4 {
            let now = fleet.limiters[0].now();
            let granted = fleet.hammer(who, per_minute(limit), each).await;
            admitted.push((now, granted));
            let lately: u32 = admitted
                .iter()
                .filter(|(at, _)| *at > now - 60_000)
                .map(|(_, granted)| granted)
                .sum();
            assert!(lately <= limit, "{lately} in the minute up to {now}");
            let wanted = u32::try_from(each * REPLICAS).unwrap();
            assert!(
                granted == wanted || lately * 100 >= limit * 98,
                "refused after {lately}, step {step}"
            );
            fleet.clock.advance(Duration::from_millis(2_500));
        }
    }
    assert!(!fleet.is_alone());
    let other = fleet.hammer(somebody(), per_minute(limit), 1).await;
    assert_eq!(other, 4, "another's limit is another");
}

#[tokio::test]
async fn a_refusal_needs_no_broker() {
    let mut fleet = Fleet::start().await;
    let (who, limits) = (somebody(), per_minute(8));
    assert_eq!(fleet.hammer(who, limits, 10).await, 8);
    fleet.server.kill().await;
    assert_eq!(fleet.hammer(who, limits, 10).await, 0);
    assert!(!fleet.is_alone());
}

#[tokio::test]
async fn without_the_broker_each_ingress_keeps_the_limit_by_itself_and_tells_it_afterwards() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let metrics = recorder.handle();
    let _recording = ::metrics::set_default_local_recorder(&recorder);
    let shows = |line: &str| metrics.render().lines().any(|shown| shown == line);
    let mut fleet = Fleet::start().await;
    let (who, limits) = (somebody(), per_minute(100));
    assert_eq!(fleet.hammer(who, limits, 9).await, 36);
    for limiter in &fleet.limiters {
        assert!(limiter.ask(who, limits).await.unwrap().admitted);
    }
    fleet.clock.advance(Duration::from_secs(30));

    fleet.server.kill().await;
    for limiter in &fleet.limiters {
        let mut alone = 0;
        while limiter.ask(who, limits).await.unwrap().admitted {
            alone += 1;
        }
        assert!((60..64).contains(&alone), "{alone}");
        assert!(limiter.is_alone());
    }
    assert!(shows("baton_ingress_rate_limits_local 1"));
    assert!(!shows("baton_ingress_rate_limit_local_decisions_total 0"));

    fleet.server.restart().await.unwrap();
    for limiter in &fleet.limiters {
        let reached = async {
            while limiter.bus.ping().await.is_err() {
                sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(LONG, reached).await.unwrap();
    }
    // The shared admissions have left the window; those that each ingress made alone have not.
    fleet.clock.advance(Duration::from_secs(31));
    let admitted = fleet.hammer(who, limits, 100).await;
    assert!((37..=40).contains(&admitted), "{admitted}");
    assert!(!fleet.is_alone());
    assert!(shows("baton_ingress_rate_limits_local 0"));
    fleet.clock.advance(Duration::from_secs(29));
    assert_eq!(fleet.hammer(who, limits, 100).await, 100 - admitted);
}

#[tokio::test]
async fn a_log_that_nobody_can_read_does_not_open_the_gate() {
    let fleet = Fleet::start().await;
    let (who, limits) = (somebody(), per_minute(5));
    let bus = &fleet.limiters[0].bus;
    let keep = Duration::from_mins(1);
    bus.replace_rate_log(who, StreamSeq::NONE, keep, "?".into())
        .await
        .unwrap();
    let limiter = &fleet.limiters[0];
    let mut admitted = 0;
    while limiter.ask(who, limits).await.unwrap().admitted {
        admitted += 1;
    }
    assert_eq!(admitted, 5);
    assert!(limiter.is_alone());
}

#[tokio::test]
async fn whoever_goes_away_while_deciding_leaves_nobody_waiting() {
    let fleet = Fleet::start().await;
    let (who, limits) = (somebody(), per_minute(1_000));
    let limiter = &fleet.limiters[0];
    for _ in 0..50 {
        let asked = (0..8).map(|place| async move {
            let patience = Duration::from_micros(if place == 0 { 50 } else { 20_000_000 });
            tokio::time::timeout(patience, limiter.ask(who, limits)).await
        });
        let decided = join_all(asked).await;
        assert!(decided[1..].iter().all(Result::is_ok));
    }
}
