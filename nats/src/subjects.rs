//! All subjects that Baton publishes to or subscribes to. They are built from typed ids, so that no
//! client can smuggle a dot or a wildcard into one.

use std::fmt::Write as _;
use std::net::IpAddr;

use async_nats::Subject;
use baton_protocol::{ApiKeyId, Lane, RunId, TenantId, WorkerId};

use crate::limited::Limited;
use crate::programs::control::Verb;
use crate::programs::intake::Address;

/// The subjects of JOBS.
pub const ALL_JOBS: &str = "jobs.*.*";
/// The subjects of EVENTS.
pub const ALL_EVENTS: &str = "events.*.*";
/// The subjects that EVENTS republishes once a message is stored.
pub const REPUBLISHED: &str = "events.>";
/// The destination of EVENTS's republishing.
pub const ALL_LIVE: &str = "live.>";
/// The subjects of DEAD.
pub const ALL_DEAD: &str = "dead.>";

/// The subjects of LIMITS.
pub const ALL_LIMITS: &str = "limits.*.*";

/// Returns `jobs.<tenant>.<lane>`, on which a run waits.
pub fn jobs(tenant: TenantId, lane: Lane) -> Subject {
    build(64, format_args!("jobs.{tenant}.{lane}"))
}

/// Returns `limits.<tenant>.<caller>`, or `limits.ip.<address>` with the address in hexadecimal
/// digits, for recent admissions.
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

/// Returns `jobs.*.<lane>`, the subjects of one lane's consumer.
pub fn lane_filter(lane: Lane) -> String {
    format!("jobs.*.{lane}")
}

/// Returns `events.<tenant>.<run>`, to which a run's holder appends.
pub fn events(tenant: TenantId, run: RunId) -> Subject {
    build(80, format_args!("events.{tenant}.{run}"))
}

/// Returns `live.<tenant>.<run>`, on which followers hear stored events.
pub fn live(tenant: TenantId, run: RunId) -> Subject {
    build(80, format_args!("live.{tenant}.{run}"))
}

/// Returns `dead.<original subject>`, for a copy of an unreadable message.
pub(crate) fn dead(origin: &Subject) -> Subject {
    build(origin.len() + 5, format_args!("dead.{}", origin.as_str()))
}

/// Returns the original subject of a message in DEAD.
pub(crate) fn before_dead(subject: &str) -> &str {
    subject.strip_prefix("dead.").unwrap_or(subject)
}

/// Returns `worker.<worker>.cancel`, which asks the worker to cancel a run that it holds.
pub fn worker_cancel(worker: WorkerId) -> Subject {
    build(64, format_args!("worker.{worker}.cancel"))
}

/// The last word of [`worker_ask`].
pub(crate) const ASK: &str = "ask";

/// Returns `worker.<worker>.ask`, which asks whether this worker is alive.
pub fn worker_ask(worker: WorkerId) -> Subject {
    build(64, format_args!("worker.{worker}.{ASK}"))
}

/// `workers.hello`: a worker announces itself and wants to be asked.
pub const HELLO: &str = "workers.hello";

/// Returns `worker.<worker>.*`, all messages to one worker.
pub fn worker_nudges(worker: WorkerId) -> Subject {
    build(64, format_args!("worker.{worker}.*"))
}

/// `tools.describe`: an ingress asks any worker for descriptions of tools.
pub const DESCRIBE_TOOLS: &str = "tools.describe";

/// `ingress.attached`: one ingress asks the others whether a client of theirs follows a run.
pub const ATTACHED: &str = "ingress.attached";

/// Returns `log-level.<role>`, a change of the log filter of all processes of a role.
pub fn log_level(role: &'static str) -> Subject {
    build(24, format_args!("log-level.{role}"))
}

/// `control.*.*.*`: programs' requests, as `control.<tenant>.<key>.<verb>`.
pub const ALL_CONTROL: &str = "control.*.*.*";

/// `submit.*.*.*`: programs' submissions, as `jobs.<tenant>.<key>.<lane>` in their own account.
pub const ALL_SUBMISSIONS: &str = "submit.*.*.*";

/// `resubmit.*.*.*`: an operator's resubmissions out of DEAD.
pub const ALL_RESUBMISSIONS: &str = "resubmit.*.*.*";

/// `history.*.*`: programs' questions for runs' history, as `history.<tenant>.<key>`.
pub const ALL_HISTORY: &str = "history.*.*";

/// Returns `resubmit.<tenant>.<key>.<lane>`: a submission out of DEAD, for the key that published
/// it.
pub fn resubmissions(tenant: TenantId, key: ApiKeyId, lane: Lane) -> Subject {
    build(104, format_args!("resubmit.{tenant}.{key}.{lane}"))
}

/// Returns `dead.submit.<tenant>.<key>.<lane>`: a copy of a message that is no submission.
pub(crate) fn dead_submission(tenant: TenantId, key: ApiKeyId, lane: Lane) -> Subject {
    build(104, format_args!("dead.submit.{tenant}.{key}.{lane}"))
}

/// Reads `submit.<tenant>.<key>.<lane>`.
pub(crate) fn of_submission(subject: &str) -> Option<Address> {
    submission_behind("submit", subject)
}

/// Reads `resubmit.<tenant>.<key>.<lane>`.
pub(crate) fn of_resubmission(subject: &str) -> Option<Address> {
    submission_behind("resubmit", subject)
}

fn submission_behind(first: &str, subject: &str) -> Option<Address> {
    let [word, tenant, key, lane] = tokens(subject)?;
    Some(Address::Submission {
        tenant: (word == first).then(|| tenant.parse().ok())??,
        key: key.parse().ok()?,
        lane: lane.parse().ok()?,
    })
}

/// Reads `history.<tenant>.<key>`.
pub(crate) fn of_history(subject: &str) -> Option<Address> {
    let ["history", tenant, key] = tokens(subject)? else {
        return None;
    };
    Some(Address::History {
        tenant: tenant.parse().ok()?,
        key: key.parse().ok()?,
    })
}

/// Reads `control.<tenant>.<key>.<verb>`.
pub(crate) fn of_control(subject: &str) -> Option<Address> {
    let ["control", tenant, key, verb] = tokens(subject)? else {
        return None;
    };
    Some(Address::Control {
        tenant: tenant.parse().ok()?,
        key: key.parse().ok()?,
        verb: Verb::parse(verb)?,
    })
}

/// Returns the tokens, if there are exactly `N`.
fn tokens<const N: usize>(subject: &str) -> Option<[&str; N]> {
    let mut tokens = subject.split('.');
    let mut found = [""; N];
    for place in &mut found {
        *place = tokens.next()?;
    }
    tokens.next().is_none().then_some(found)
}

/// Returns `replies.<tenant>.<run>`, for answers to programs about a run.
pub fn replies(tenant: TenantId, run: RunId) -> Subject {
    build(96, format_args!("replies.{tenant}.{run}"))
}

/// Returns `past.<tenant>.<run>`, for answers to programs about a run's history.
///
/// The asker chooses neither this subject nor [`replies`]: an answer crosses into the account of
/// all programs, where another tenant's program may listen on a subject of the asker's choice.
pub fn past(tenant: TenantId, run: RunId) -> Subject {
    build(96, format_args!("past.{tenant}.{run}"))
}

/// `ingress.revoked`: one ingress announces a revoked key or session to all.
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

/// `$SYS.REQ.USER.AUTH`: a server asks about a new connection.
pub const CONNECTS: &str = "$SYS.REQ.USER.AUTH";

/// The subjects that programs reach, as permissions spell them. Programs live in an account of
/// their own, in which some subjects have other names: `nats/accounts.conf`.
pub(crate) mod program {
    use baton_protocol::{ApiKeyId, Lane, TenantId};

    use crate::programs::control::Verb;

    /// Returns the subject on which this key submits to a lane; an ingress hears it on
    /// `submit.<tenant>.<key>.<lane>`.
    pub(crate) fn jobs(tenant: TenantId, key: ApiKeyId, lane: Lane) -> String {
        format!("jobs.{tenant}.{key}.{lane}")
    }

    /// Returns the subject of this key's requests of one verb.
    pub(crate) fn control(tenant: TenantId, key: ApiKeyId, verb: Verb) -> String {
        format!("control.{tenant}.{key}.{}", verb.as_str())
    }

    /// Returns the subject of this key's questions for history.
    pub(crate) fn history(tenant: TenantId, key: ApiKeyId) -> String {
        format!("history.{tenant}.{key}")
    }

    /// Returns the subjects of the tenant's live events.
    pub(crate) fn live(tenant: TenantId) -> String {
        format!("live.{tenant}.*")
    }

    /// Returns the subjects of answers about the tenant's runs.
    pub(crate) fn replies(tenant: TenantId) -> String {
        format!("replies.{tenant}.*")
    }

    /// Returns the subjects of answers about the history of the tenant's runs.
    pub(crate) fn past(tenant: TenantId) -> String {
        format!("past.{tenant}.*")
    }

    /// Returns the subjects on which a client library hears that nobody took its request.
    pub(crate) fn inbox(tenant: TenantId) -> String {
        format!("_INBOX_{tenant}.>")
    }
}

/// The system account's services, as the broker spells them.
pub(crate) mod system {
    use async_nats::Subject;

    /// The subject on which every server answers with its connections.
    pub(crate) const CONNECTIONS: &str = "$SYS.REQ.SERVER.PING.CONNZ";

    /// Returns the subject on which one server closes one of its connections.
    pub(crate) fn kick(server: &str) -> Subject {
        super::build(80, format_args!("$SYS.REQ.SERVER.{server}.KICK"))
    }
}

/// Reads the tenant out of a job's subject.
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

    /// Names the consumer of a lane that this version does not know.
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

/// Builds a subject with one allocation; writing to a string cannot fail.
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
                resubmissions(tenant, RUN.parse().unwrap(), Lane::Background),
                format!("resubmit.{TENANT}.{RUN}.background"),
            ),
            (
                dead_submission(tenant, RUN.parse().unwrap(), Lane::Background),
                format!("dead.submit.{TENANT}.{RUN}.background"),
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
    fn what_a_program_publishes_to_says_who_it_is_and_nothing_else_is_read() {
        let (tenant, key) = (TENANT.parse().unwrap(), RUN.parse().unwrap());
        let lane = Lane::Background;
        let submission = Address::Submission { tenant, key, lane };
        let said = program::jobs(tenant, key, lane).replacen("jobs", "submit", 1);
        assert_eq!(of_submission(&said), Some(submission));
        let again = resubmissions(tenant, key, lane);
        assert_eq!(of_resubmission(&again), Some(submission));
        let dead = dead_submission(tenant, key, lane);
        assert_eq!(of_submission(before_dead(&dead)), Some(submission));
        for verb in Verb::ALL {
            let said = program::control(tenant, key, verb);
            assert_eq!(
                of_control(&said),
                Some(Address::Control { tenant, key, verb })
            );
        }
        let said = program::history(tenant, key);
        assert_eq!(of_history(&said), Some(Address::History { tenant, key }));

        for subject in [
            format!("submit.{TENANT}.{RUN}"),
            format!("submit.{TENANT}.{RUN}.fast"),
            format!("submit.acme.{RUN}.background"),
            format!("submit.{TENANT}.{}.background", RUN.to_uppercase()),
            format!("submit.{TENANT}.{RUN}.background.x"),
            format!("submit.{TENANT}.{RUN}.background\u{3000}1"),
            format!("resubmit.{TENANT}.{RUN}.background"),
            format!("control.{TENANT}.{RUN}.pause"),
            format!("control.{TENANT}.{RUN}.cancel "),
            format!("history.{TENANT}.{RUN}.x"),
            format!("history.{TENANT}.x"),
            String::new(),
        ] {
            let read = [of_submission, of_control, of_history].map(|read| read(&subject));
            assert_eq!(read, [None, None, None], "{subject}");
        }
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
