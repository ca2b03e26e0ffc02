use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn per_minute(limit: u32) -> RateLimits {
    RateLimits {
        per_minute: limit,
        per_day: 0,
    }
}

/// Counts the `admitted` (time, number) in the window that ends at `now`.
fn within(admitted: &[(i64, u32)], now: i64, window: i64) -> u64 {
    admitted
        .iter()
        .filter(|(at, _)| *at > now - window && *at <= now)
        .map(|(_, count)| u64::from(*count))
        .sum()
}

#[test]
fn all_of_a_limit_at_once_and_again_exactly_a_minute_later() {
    let limits = per_minute(100);
    let mut log = RateLog::default();
    assert_eq!(log.admit(limits, 5_000, 250), 100);
    assert_eq!(log.admit(limits, 64_999, 1), 0);
    assert_eq!(log.standing(limits, 64_999).reset, 1);
    assert_eq!(log.admit(limits, 65_000, 250), 100);
}

#[test]
fn there_is_no_burst_at_the_edge_of_a_minute_of_the_clock() {
    let limits = per_minute(100);
    let mut log = RateLog::default();
    assert_eq!(log.admit(limits, 59_900, 100), 100);
    assert_eq!(log.admit(limits, 60_100, 100), 0);
}

#[test]
fn the_tightest_limit_is_the_one_that_is_shown() {
    let limits = RateLimits {
        per_minute: 10,
        per_day: 12,
    };
    let mut log = RateLog::default();
    assert_eq!(log.admit(limits, 0, 10), 10);
    let standing = log.standing(limits, 1_000);
    assert_eq!(
        (standing.limit, standing.remaining, standing.reset),
        (10, 0, 59)
    );
    assert_eq!(log.admit(limits, 60_000, 10), 2);
    let standing = log.standing(limits, 60_000);
    assert_eq!((standing.limit, standing.remaining), (12, 0));
    assert_eq!(standing.reset, 24 * 60 * 60 - 60);
}

#[test]
fn a_clock_that_lags_behind_another_admits_nothing_twice() {
    let limits = per_minute(10);
    let mut log = RateLog::default();
    assert_eq!(log.admit(limits, 10_000, 10), 10);
    assert_eq!(log.admit(limits, 8_000, 10), 0);
    assert_eq!(log.admit(limits, 69_999, 10), 0);
    assert_eq!(log.admit(limits, 70_000, 10), 10);
}

#[test]
fn a_log_of_another_version_is_not_read_as_an_empty_one() {
    let mut log = RateLog::default();
    log.admit(per_minute(3), 7, 2);
    let bytes = log.encode().unwrap();
    assert_eq!(bytes, br#"{"v":1,"minute":[[7,2]],"day":[]}"#);
    assert_eq!(RateLog::decode(&bytes), Some(log));
    for bad in [
        &br#"{"v":2,"minute":[],"day":[]}"#[..],
        b"",
        b"{}",
        br#"{"v":1,"minute":[[7]],"day":[]}"#,
    ] {
        assert_eq!(RateLog::decode(bad), None);
    }
}

proptest! {
    /// Replicas decide from the log as they last saw it. An admission counts only if that was the
    /// newest version; otherwise they read it and decide again. Refusals need no newest version.
    #[test]
    fn in_any_rolling_minute_at_most_the_limit_and_no_refusal_below_98_percent_of_it(
        limit in 1_u32..400,
        arrivals in vec((0_i64..4_000, 1_u32..40, 0_usize..4), 1..400),
    ) {
        let limits = per_minute(limit);
        let mut shared = RateLog::default();
        let mut seen = [const { None::<RateLog> }; 4];
        let mut admitted: Vec<(i64, u32)> = Vec::new();
        let mut now = 1_000_000;
        for (gap, wanted, replica) in arrivals {
            now += gap;
            let mut log = seen[replica].clone().unwrap_or_default();
            let mut granted = log.admit(limits, now, wanted);
            if granted > 0 {
                log = RateLog::decode(&shared.encode().unwrap()).unwrap();
                granted = log.admit(limits, now, wanted);
                if granted > 0 {
                    shared = log.clone();
                }
                seen[replica] = Some(log);
            }
            if granted > 0 {
                admitted.push((now, granted));
            }
            let lately = within(&admitted, now, MINUTE_MS);
            prop_assert!(lately <= u64::from(limit));
            if granted < wanted {
                prop_assert!(lately * 100 >= u64::from(limit) * 98, "{lately} of {limit}");
                let standing = shared.standing(limits, now);
                prop_assert_eq!(standing.remaining, 0);
                let later = now + i64::from(standing.reset) * 1_000;
                prop_assert!(shared.clone().admit(limits, later, 1) == 1);
            }
            prop_assert!(shared.minute.0.len() <= 101);
        }
    }

    #[test]
    fn what_was_admitted_apart_counts_together(
        limit in 1_u32..200,
        one in vec((0_i64..3_000, 1_u32..20), 0..40),
        two in vec((0_i64..3_000, 1_u32..20), 0..40),
    ) {
        let limits = per_minute(limit);
        let mut admitted = Vec::new();
        let [mut first, second] = [one, two].map(|arrivals| {
            let (mut log, mut now) = (RateLog::default(), 1_000_000);
            for (gap, wanted) in arrivals {
                now += gap;
                let granted = log.admit(limits, now, wanted);
                admitted.push((now, granted));
            }
            log
        });
        first.merge(limits, &second);
        let now = admitted.iter().map(|(at, _)| *at).max().unwrap_or(1_000_000);
        let lately = within(&admitted, now, MINUTE_MS);
        let left = u64::from(limit).saturating_sub(lately);
        prop_assert!(u64::from(first.standing(limits, now).remaining) <= left);
    }
}
