//! Every subject that Baton publishes to or subscribes to. All are built from typed ids, so that
//! nothing a client wrote can smuggle a dot or a wildcard into one.

use std::fmt::Write as _;
use std::net::IpAddr;

use async_nats::Subject;
use baton_protocol::ids::InvalidId;
use baton_protocol::job::UnknownLane;
use baton_protocol::{Lane, RunId, TenantId, WorkerId};

use crate::limited::Limited;

/// What JOBS takes in.
pub const ALL_JOBS: &str = "jobs.*.*";
/// What EVENTS takes in.
pub const ALL_EVENTS: &str = "events.*.*";
/// What EVENTS republishes, once it is stored.
pub const REPUBLISHED: &str = "events.>";
/// Where EVENTS republishes it to.
pub const ALL_LIVE: &str = "live.>";
/// What DEAD takes in.
pub const ALL_DEAD: &str = "dead.>";

/// What LIMITS takes in.
pub const ALL_LIMITS: &str = "limits.*.*";

/// `jobs.<tenant>.<lane>`: a run waits here.
pub fn jobs(tenant: TenantId, lane: Lane) -> Subject {
    build(64, format_args!("jobs.{tenant}.{lane}"))
}

/// `limits.<tenant>.<caller>`, or `limits.ip.<address>` with the address in hexadecimal digits: what
/// was admitted lately.
pub fn rate_log(of: Limited) -> Subject {
    match of {
        Limited::Caller { tenant, caller } => build(
            96,
            format_args!("limits.{tenant}.{}", caller.as_hyphenated()),
        ),
        Limited::Quarantine { tenant, caller } => build(
            96,
            format_args!("limits.{tenant}.dead-{}", caller.as_hyphenated()),
        ),
        Limited::Address(address) => match address.to_canonical() {
            IpAddr::V4(four) => build(32, format_args!("limits.ip.{:08x}", four.to_bits())),
            IpAddr::V6(six) => {
                let network = six.to_bits() >> 64;
                build(32, format_args!("limits.ip.{network:016x}"))
            }
        },
    }
}

/// `jobs.*.<lane>`: what one lane's consumer takes.
pub fn lane_filter(lane: Lane) -> String {
    format!("jobs.*.{lane}")
}

/// `events.<tenant>.<run>`: where a run's holder appends.
pub fn events(tenant: TenantId, run: RunId) -> Subject {
    build(80, format_args!("events.{tenant}.{run}"))
}

/// `live.<tenant>.<run>`: where what was stored is followed.
pub fn live(tenant: TenantId, run: RunId) -> Subject {
    build(80, format_args!("live.{tenant}.{run}"))
}

/// `dead.<the subject a message came on>`: where a copy of an unreadable message goes.
pub(crate) fn dead(origin: &Subject) -> Subject {
    build(origin.len() + 5, format_args!("dead.{}", origin.as_str()))
}

/// The subject that a message in DEAD came on.
pub(crate) fn before_dead(subject: &str) -> &str {
    subject.strip_prefix("dead.").unwrap_or(subject)
}

/// `worker.<worker>.cancel`: a run of this worker's is to be cancelled.
pub fn worker_cancel(worker: WorkerId) -> Subject {
    build(64, format_args!("worker.{worker}.cancel"))
}

/// The last word of [`worker_ask`].
pub(crate) const ASK: &str = "ask";

/// `worker.<worker>.ask`: is this worker there?
pub fn worker_ask(worker: WorkerId) -> Subject {
    build(64, format_args!("worker.{worker}.{ASK}"))
}

/// `workers.hello`: a worker is there, and wants to be asked.
pub const HELLO: &str = "workers.hello";

/// `worker.<worker>.*`: all that is said to one worker.
pub fn worker_nudges(worker: WorkerId) -> Subject {
    build(64, format_args!("worker.{worker}.*"))
}

/// `ingress.attached`: one ingress asks the others whether a client of theirs is with a run.
pub const ATTACHED: &str = "ingress.attached";

/// `control.*.*.*`: what programs ask for.
pub const ALL_CONTROL: &str = "control.*.*.*";

/// `submit.*.*`: what programs submit, as `jobs.<tenant>.<lane>` in their own account.
pub const ALL_SUBMISSIONS: &str = "submit.*.*";

/// `resubmit.*.*`: what an operator submits again out of DEAD.
pub const ALL_RESUBMISSIONS: &str = "resubmit.*.*";

/// `history.*.*`: what programs want to know of a run's past.
pub const ALL_HISTORY: &str = "history.*.*";

/// `resubmit.<tenant>.<lane>`: a submission out of DEAD.
pub fn resubmissions(tenant: TenantId, lane: Lane) -> Subject {
    build(64, format_args!("resubmit.{tenant}.{lane}"))
}

/// The subject that a submission out of DEAD was published on first.
pub(crate) fn before_resubmission(subject: &Subject) -> Subject {
    let rest = subject.strip_prefix("resubmit.").unwrap_or(subject);
    build(64, format_args!("submit.{rest}"))
}

/// What the subject of a submission says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OfSubmission {
    pub(crate) tenant: Result<TenantId, String>,
    pub(crate) lane: Result<Lane, String>,
    /// Whether it comes out of DEAD.
    pub(crate) again: bool,
}

/// Reads `submit.<tenant>.<lane>` and `resubmit.<tenant>.<lane>`.
pub(crate) fn of_submission(subject: &str) -> OfSubmission {
    let mut tokens = subject.split('.');
    let (first, tenant, lane, end) = (tokens.next(), tokens.next(), tokens.next(), tokens.next());
    let (tenant, lane) = if let (Some(tenant), Some(lane), None) = (tenant, lane, end) {
        let tenant = tenant.parse();
        let lane = lane.parse();
        (
            tenant.map_err(|invalid: InvalidId| format!("in the subject: {invalid}")),
            lane.map_err(|unknown: UnknownLane| format!("in the subject: {unknown}")),
        )
    } else {
        let wrong = format!("`{subject}` is not submit.<tenant>.<lane>");
        (Err(wrong.clone()), Err(wrong))
    };
    OfSubmission {
        tenant,
        lane,
        again: first == Some("resubmit"),
    }
}

/// Reads tenant and run out of `history.<tenant>.<run>`.
pub(crate) fn of_history(subject: &str) -> Option<(TenantId, RunId)> {
    let mut tokens = subject.split('.');
    let (Some("history"), Some(tenant), Some(run), None) =
        (tokens.next(), tokens.next(), tokens.next(), tokens.next())
    else {
        return None;
    };
    Some((tenant.parse().ok()?, run.parse().ok()?))
}

/// `replies.<tenant>.<run>`: where programs are answered about a run.
pub fn replies(tenant: TenantId, run: RunId) -> Subject {
    build(96, format_args!("replies.{tenant}.{run}"))
}

/// `past.<tenant>.<run>`: where a program is told what a run has shown before.
///
/// Neither this nor [`replies`] is a subject that the asker chose: an answer crosses to the account of
/// all programs, where another tenant's may listen to the one that was named.
pub fn past(tenant: TenantId, run: RunId) -> Subject {
    build(96, format_args!("past.{tenant}.{run}"))
}

/// Reads tenant, run and verb out of `control.<tenant>.<run>.<verb>`.
pub(crate) fn of_control(subject: &str) -> Option<(TenantId, RunId, &str)> {
    let mut tokens = subject.split('.');
    let (Some("control"), Some(tenant), Some(run), Some(verb), None) = (
        tokens.next(),
        tokens.next(),
        tokens.next(),
        tokens.next(),
        tokens.next(),
    ) else {
        return None;
    };
    Some((tenant.parse().ok()?, run.parse().ok()?, verb))
}

/// `ingress.revoked`: one ingress tells all which key or session is not good any more.
pub const REVOKED: &str = "ingress.revoked";

/// Reads tenant and lane out of `jobs.<tenant>.<lane>`.
pub(crate) fn of_job(subject: &str) -> Option<(TenantId, Lane)> {
    let mut tokens = subject.split('.');
    let (Some("jobs"), Some(tenant), Some(lane), None) =
        (tokens.next(), tokens.next(), tokens.next(), tokens.next())
    else {
        return None;
    };
    Some((tenant.parse().ok()?, lane.parse().ok()?))
}

/// `$SYS.REQ.USER.AUTH`: a server asks who wants to connect.
pub const CONNECTS: &str = "$SYS.REQ.USER.AUTH";

/// What programs reach, as permissions are written. They live in an account of their own, where some
/// subjects have other names: `nats/accounts.conf`.
pub(crate) mod program {
    use baton_protocol::TenantId;

    /// Where jobs are submitted; an ingress hears them on `submit.<tenant>.<lane>`.
    pub(crate) fn jobs(tenant: TenantId) -> String {
        format!("jobs.{tenant}.*")
    }

    /// Where something is asked of any run.
    pub(crate) fn control(tenant: TenantId, verb: &str) -> String {
        format!("control.{tenant}.*.{verb}")
    }

    /// Where a run's events are asked for.
    pub(crate) fn history(tenant: TenantId) -> String {
        format!("history.{tenant}.*")
    }

    /// Where any run is followed.
    pub(crate) fn live(tenant: TenantId) -> String {
        format!("live.{tenant}.*")
    }

    /// Where answers about any run arrive.
    pub(crate) fn replies(tenant: TenantId) -> String {
        format!("replies.{tenant}.*")
    }

    /// Where a run's events arrive that were asked for.
    pub(crate) fn past(tenant: TenantId) -> String {
        format!("past.{tenant}.*")
    }

    /// Where a client library hears that nobody took its request.
    pub(crate) fn inbox(tenant: TenantId) -> String {
        format!("_INBOX_{tenant}.>")
    }
}

/// The system account's services, as the broker spells them.
pub(crate) mod system {
    use async_nats::Subject;

    /// Every server answers with its connections.
    pub(crate) const CONNECTIONS: &str = "$SYS.REQ.SERVER.PING.CONNZ";

    /// One server closes one of its connections.
    pub(crate) fn kick(server: &str) -> Subject {
        super::build(80, format_args!("$SYS.REQ.SERVER.{server}.KICK"))
    }
}

/// Reads the tenant out of a job's subject, if one is there.
pub(crate) fn tenant_of_job(subject: &str) -> Result<TenantId, String> {
    let mut tokens = subject.split('.');
    match (tokens.next(), tokens.next(), tokens.next(), tokens.next()) {
        (Some("jobs"), Some(tenant), Some(_lane), None) => tenant
            .parse()
            .map_err(|invalid| format!("in the subject: {invalid}")),
        _ => Err(format!("`{subject}` is not jobs.<tenant>.<lane>")),
    }
}

/// The JetStream API, as the broker spells it.
pub(crate) mod api {
    use async_nats::Subject;
    use baton_protocol::{Lane, RunId, TenantId};

    use super::build;
    use crate::names;

    pub(crate) const ACCOUNT_INFO: &str = "$JS.API.INFO";
    pub(crate) const GET_JOBS: &str = "$JS.API.STREAM.MSG.GET.JOBS";
    pub(crate) const EVENTS_INFO: &str = "$JS.API.STREAM.INFO.EVENTS";
    pub(crate) const JOBS_INFO: &str = "$JS.API.STREAM.INFO.JOBS";
    pub(crate) const DEAD_INFO: &str = "$JS.API.STREAM.INFO.DEAD";
    pub(crate) const DIRECT_GET_EVENTS: &str = "$JS.API.DIRECT.GET.EVENTS";

    pub(crate) fn direct_get_tip(tenant: TenantId, run: RunId) -> Subject {
        build(
            112,
            format_args!("{DIRECT_GET_EVENTS}.events.{tenant}.{run}"),
        )
    }

    pub(crate) fn next_job(lane: Lane) -> Subject {
        build(
            64,
            format_args!(
                "$JS.API.CONSUMER.MSG.NEXT.{}.{}",
                names::JOBS,
                names::consumer_name(lane)
            ),
        )
    }

    /// Of a lane that this version does not know.
    pub(crate) fn consumer_info_by_name(lane: &str) -> Subject {
        build(
            64,
            format_args!("$JS.API.CONSUMER.INFO.{}.worker-{lane}", names::JOBS),
        )
    }

    pub(crate) fn consumer_info(lane: Lane) -> Subject {
        build(
            64,
            format_args!(
                "$JS.API.CONSUMER.INFO.{}.{}",
                names::JOBS,
                names::consumer_name(lane)
            ),
        )
    }
}

/// One allocation for the whole subject; writing to a string cannot fail.
fn build(capacity: usize, parts: std::fmt::Arguments<'_>) -> Subject {
    let mut subject = String::with_capacity(capacity);
    let written = subject.write_fmt(parts);
    debug_assert!(written.is_ok(), "a subject is always writable");
    Subject::from(subject)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENANT: &str = "01890a5d-ac96-774b-bcce-b302099a8057";
    const RUN: &str = "01890a5d-ac96-774b-bcce-b302099a8058";

    #[test]
    fn subjects_are_spelled_as_documented() {
        let (tenant, run) = (TENANT.parse().unwrap(), RUN.parse().unwrap());
        let worker = RUN.parse().unwrap();
        for (built, spelled) in [
            (
                jobs(tenant, Lane::Background),
                format!("jobs.{TENANT}.background"),
            ),
            (events(tenant, run), format!("events.{TENANT}.{RUN}")),
            (live(tenant, run), format!("live.{TENANT}.{RUN}")),
            (replies(tenant, run), format!("replies.{TENANT}.{RUN}")),
            (
                rate_log(Limited::Caller {
                    tenant,
                    caller: RUN.parse().unwrap(),
                }),
                format!("limits.{TENANT}.{RUN}"),
            ),
            (
                rate_log(Limited::Quarantine {
                    tenant,
                    caller: RUN.parse().unwrap(),
                }),
                format!("limits.{TENANT}.dead-{RUN}"),
            ),
            (
                resubmissions(tenant, Lane::Background),
                format!("resubmit.{TENANT}.background"),
            ),
            (
                rate_log(Limited::Address("192.0.2.1".parse().unwrap())),
                "limits.ip.c0000201".to_owned(),
            ),
            (
                rate_log(Limited::Address("::ffff:192.0.2.1".parse().unwrap())),
                "limits.ip.c0000201".to_owned(),
            ),
            (
                rate_log(Limited::Address("2001:db8::1".parse().unwrap())),
                "limits.ip.20010db800000000".to_owned(),
            ),
            (worker_cancel(worker), format!("worker.{RUN}.cancel")),
            (worker_ask(worker), format!("worker.{RUN}.ask")),
            (worker_nudges(worker), format!("worker.{RUN}.*")),
            (
                dead(&jobs(tenant, Lane::Interactive)),
                format!("dead.jobs.{TENANT}.interactive"),
            ),
        ] {
            assert_eq!(built.as_str(), spelled);
        }
    }

    #[test]
    fn a_submission_is_for_a_tenant_and_a_lane_or_says_what_is_wrong() {
        let (tenant, lane) = (TENANT.parse().unwrap(), Lane::Background);
        for (first, again) in [("submit", false), ("resubmit", true)] {
            let here = OfSubmission {
                tenant: Ok(tenant),
                lane: Ok(lane),
                again,
            };
            assert_eq!(of_submission(&format!("{first}.{TENANT}.background")), here);
        }
        let again = resubmissions(tenant, lane);
        let first = format!("submit.{TENANT}.background");
        assert_eq!(before_resubmission(&again).as_str(), first);
        assert!(of_submission("submit.acme.background").tenant.is_err());
        assert!(
            of_submission(&format!("submit.{TENANT}.fast"))
                .lane
                .is_err()
        );
        assert!(of_submission(&format!("submit.{TENANT}")).tenant.is_err());
    }

    #[test]
    fn a_job_subject_without_a_tenant_id_is_refused() {
        assert_eq!(
            tenant_of_job(&format!("jobs.{TENANT}.interactive")),
            Ok(TENANT.parse().unwrap())
        );
        for subject in [
            "jobs.acme.interactive",
            "jobs.interactive",
            "jobs.a.b.c",
            "live.a.b",
        ] {
            assert!(tenant_of_job(subject).is_err(), "{subject}");
        }
    }
}
