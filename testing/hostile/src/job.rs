//! Messages in the queue, from any client that may publish there.

use std::collections::BTreeMap;

use baton_protocol::{Job, SubmitJob};
use serde_json::value::RawValue;

/// The longest reason: more than a sentence needs, and far less than a reply can hold.
const LONGEST_REASON: usize = 512;

/// Checks that an accepted job or submission is an object of version 1 without unknown fields,
/// never both kinds at once, and is written and read again as the same. A refusal is short,
/// whatever was sent.
pub fn job(data: &[u8]) {
    let job = Job::decode(data);
    let submission = SubmitJob::decode(data);
    match (&job, &submission) {
        (Ok(job), refused) => {
            assert!(refused.is_err());
            assert_known(data, "run", &["v", "kind", "run_id"]);
            let written = job.encode();
            assert_eq!(Job::decode(&written).ok().as_ref(), Some(job));
        }
        (Err(_), Ok(submission)) => {
            let known = [
                "v",
                "kind",
                "run_id",
                "request",
                "request_id",
                "traceparent",
            ];
            let said = assert_known(data, "submit", &known);
            for text in [&submission.request_id, &submission.traceparent] {
                assert!(
                    text.iter()
                        .all(|text| text.bytes().all(|byte| byte.is_ascii_graphic()))
                );
            }
            assert_eq!(said["request"].get(), submission.request.get());
            assert!(
                submission.run_id.unix_millis().is_some(),
                "the id has its time"
            );
            let written = submission.encode();
            let again = SubmitJob::decode(&written).expect("what is written is read");
            assert_eq!(again.run_id, submission.run_id);
            assert_eq!(again.encode(), written);
        }
        (Err(bad), Err(worse)) => {
            for reason in [bad.to_string(), worse.message.clone()] {
                assert!(reason.len() <= LONGEST_REASON, "{reason}");
            }
        }
    }
}

/// Returns the fields, and checks that there are no others than `known`.
fn assert_known<'a>(data: &'a [u8], kind: &str, known: &[&str]) -> BTreeMap<String, &'a RawValue> {
    // Not as values, because an unparsed value may hold half of a surrogate pair.
    let said: BTreeMap<String, &RawValue> = serde_json::from_slice(data).expect("an object");
    assert_eq!(said["v"].get(), "1");
    assert_eq!(
        serde_json::from_str::<&str>(said["kind"].get()).ok(),
        Some(kind)
    );
    assert!(
        said.keys().all(|key| known.contains(&key.as_str())),
        "{said:?}"
    );
    said
}
