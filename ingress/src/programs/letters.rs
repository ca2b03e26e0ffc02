//! Limits the bytes that a publisher and its tenant may fill in DEAD: a publisher of nothing but
//! garbage must not displace the letters of others.

use baton_nats::{KEPT_OF_A_LETTER, Limited};
use baton_protocol::TenantId;
use uuid::Uuid;

use crate::access::Caller;
use crate::access::rate::{RateLimiter, RateLimits};

/// The unit in which letters are counted, in bytes; each counts as at least one.
const UNIT: usize = 1 << 10;
/// Half of DEAD is what one tenant's letters may fill in the days for which they are kept.
const TENANTS_PART: u64 = 2;
const DAYS_KEPT: u64 = 30;
/// The letters of full length that a publisher may leave in a minute, even if DEAD is small.
const LONGEST_A_MINUTE: u32 = 2;
/// An eighth of a day's share may come in one minute.
const MINUTES_PART: u32 = 8;

/// The limits of one tenant and of each of its publishers, in units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LetterLimits {
    tenant: RateLimits,
    publisher: RateLimits,
}

impl LetterLimits {
    /// Divides a DEAD of `dead_max_bytes`.
    pub(crate) fn of(dead_max_bytes: u64) -> Self {
        let share = dead_max_bytes / TENANTS_PART / DAYS_KEPT / UNIT as u64;
        let share = u32::try_from(share).unwrap_or(u32::MAX);
        let least = units(KEPT_OF_A_LETTER) * LONGEST_A_MINUTE;
        let limits = |per_day: u32| RateLimits {
            per_minute: (per_day / MINUTES_PART).max(least),
            per_day: per_day.max(least),
        };
        Self {
            tenant: limits(share),
            // Half of the share, so that the tenant's other keys have room.
            publisher: limits(share / 2),
        }
    }

    /// Counts a letter of `bytes`, and returns whether it may be left. All unknown publishers share
    /// one count.
    pub(super) async fn admit(
        self,
        rates: &RateLimiter,
        by: Option<&Caller>,
        bytes: usize,
    ) -> bool {
        let known = by.and_then(|by| Some((by.tenant, by.grant.api_key?.as_uuid())));
        let (tenant, publisher) = known
            .map_or((TenantId::from_uuid(Uuid::nil()), None), |(tenant, key)| {
                (tenant, Some(key))
            });
        let counted = [
            publisher.map(|key| (key, self.publisher)),
            Some((Uuid::nil(), self.tenant)),
        ];
        for (caller, limits) in counted.into_iter().flatten() {
            let of = Limited::Quarantine { tenant, caller };
            let decision = rates.ask_for(of, limits, units(bytes)).await;
            if decision.is_some_and(|decision| !decision.admitted) {
                return false;
            }
        }
        true
    }
}

/// Returns the units that a letter counts as: at most the part of it that is kept, and its headers.
fn units(bytes: usize) -> u32 {
    let kept = bytes.min(KEPT_OF_A_LETTER);
    u32::try_from(1 + kept / UNIT).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thirty_days_of_one_tenant_fill_no_more_than_half_of_the_stream() {
        let size = 256 << 20;
        let LetterLimits { tenant, publisher } = LetterLimits::of(size);
        let month = u64::from(tenant.per_day) * DAYS_KEPT * UNIT as u64;
        assert!(month <= size / 2, "{month}");
        assert!(publisher.per_day <= tenant.per_day / 2);
        // A letter of a few bytes counts as one unit, and the longest letter fits.
        assert_eq!((units(0), units(10 << 20)), (1, 65));
        assert!(publisher.per_minute >= units(usize::MAX));
        let tiny = LetterLimits::of(1);
        assert!(tiny.publisher.per_day >= units(usize::MAX));
    }
}
