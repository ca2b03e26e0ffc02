//! Messages in the queue, as published by anybody who may.

use std::collections::BTreeMap;

use baton_protocol::Job;
use serde_json::value::RawValue;

/// What is read as a job is an object of version 1 and of nothing unknown, and is written and read
/// again as the same.
pub fn job(data: &[u8]) {
    let Ok(job) = Job::decode(data) else { return };
    // Not as a value: what nobody has looked into yet may hold half of a surrogate pair.
    let said: BTreeMap<String, &RawValue> =
        serde_json::from_slice(data).expect("a job is an object");
    let say = |name: &str| said.get(name).map(|value| value.get());
    assert_eq!(say("v"), Some("1"));
    let known = ["v", "kind", "run_id", "request"];
    assert!(
        said.keys().all(|key| known.contains(&key.as_str())),
        "{said:?}"
    );
    match &job {
        Job::Run { .. } => assert!(say("request").is_none_or(|request| request == "null")),
        Job::Submit { request, .. } => assert_eq!(say("request"), Some(request.get())),
    }
    let written = job.encode();
    let again = Job::decode(&written).expect("what is written is read");
    assert_eq!(again.run_id(), job.run_id());
    assert_eq!(again.encode(), written);
}
