use serde_json::json;

use super::*;

const RUN: &str = "01890a5d-ac96-774b-bcce-b302099a8058";

fn decode(verb: &str, fields: &Value) -> Result<ControlMessage, BadMessage> {
    let mut message = json!({"v": 1, "run_id": RUN});
    for (name, value) in fields.as_object().unwrap() {
        message[name] = value.clone();
    }
    ControlMessage::decode(verb, message.to_string().as_bytes())
}

#[test]
fn requests_are_read_as_documented() {
    let read = decode("cancel", &json!({"reason": "enough", "request_id": "r"})).unwrap();
    let expected = CancelMessage {
        run_id: RUN.parse().unwrap(),
        request_id: Some("r".into()),
        reason: Some("enough".into()),
    };
    assert!(matches!(read, ControlMessage::Cancel(cancel) if cancel == expected));
    for (fields, decision) in [
        (json!({"decision": "retry"}), Decision::Retry {}),
        (
            json!({"decision": "result", "result": "7"}),
            Decision::Result { result: "7".into() },
        ),
        (
            json!({"decision": "fail"}),
            Decision::Fail {
                reason: String::new(),
            },
        ),
        (
            json!({"decision": "fail", "reason": "no"}),
            Decision::Fail {
                reason: "no".into(),
            },
        ),
        (
            json!({"decision": "approve", "scope": "run"}),
            Decision::Approve {
                arguments: None,
                scope: ApprovalScope::Run,
            },
        ),
        (
            json!({"decision": "approve", "arguments": {"amount": 7}}),
            Decision::Approve {
                arguments: Some(Map::from_iter([("amount".to_owned(), json!(7))])),
                scope: ApprovalScope::Once,
            },
        ),
        (
            json!({"decision": "raise", "limits": {"max_tokens": 9}}),
            Decision::Raise {
                limits: RequestLimits {
                    max_tokens: Some(9),
                    ..RequestLimits::default()
                },
            },
        ),
        (json!({"decision": "stop"}), Decision::Stop {}),
        (
            json!({"decision": "accept", "content": {"name": "Ada"}}),
            Decision::Accept {
                content: Some(Map::from_iter([("name".to_owned(), json!("Ada"))])),
            },
        ),
        (json!({"decision": "decline"}), Decision::Decline {}),
        (json!({"decision": "cancel"}), Decision::Cancel {}),
        (
            json!({"decision": "reject", "reason": "no"}),
            Decision::Reject {
                reason: "no".into(),
            },
        ),
    ] {
        let mut fields = fields;
        fields["approval_id"] = RUN.into();
        let ControlMessage::Decide(read) = decode("decide", &fields).unwrap() else {
            panic!("not a decision")
        };
        assert_eq!(
            (read.approval_id.to_string(), read.decision),
            (RUN.to_owned(), decision)
        );
    }
}

#[test]
fn released_messages_stay_decodable() {
    let cancel = include_bytes!("../../golden/control.v1.cancel.json");
    ControlMessage::decode("cancel", cancel).unwrap();
    let decide = include_bytes!("../../golden/control.v1.decide.json");
    ControlMessage::decode("decide", decide).unwrap();
    let steer = include_bytes!("../../golden/control.v1.steer.json");
    ControlMessage::decode("steer", steer).unwrap();
    let follow_up = include_bytes!("../../golden/control.v1.follow-up.json");
    let ControlMessage::Steer(read) = ControlMessage::decode("steer", follow_up).unwrap() else {
        panic!("not a message to a run")
    };
    assert!(matches!(read.mode, SteerMode::FollowUp { .. }));
}

#[test]
fn a_refusal_names_what_is_wrong_and_repeats_what_it_can() {
    let approval = json!({"approval_id": RUN, "request_id": "mine"});
    let with = |name: &str, value: Value| {
        let mut fields = approval.clone();
        fields[name] = value;
        fields
    };
    for (verb, fields, code, says) in [
        (
            "cancel",
            json!({"raeson": "x"}),
            "invalid_request",
            "unknown field `raeson`",
        ),
        (
            "cancel",
            json!({"v": 2, "later": 1}),
            "unsupported_version",
            "version 2",
        ),
        (
            "cancel",
            json!({"run_id": "x"}),
            "invalid_run_id",
            "hyphenated UUID",
        ),
        (
            "cancel",
            json!({"request_id": "a\0"}),
            "invalid_request",
            "`request_id`",
        ),
        (
            "cancel",
            json!({"reason": "x".repeat(MAX_REASON + 1)}),
            "invalid_request",
            "`reason`",
        ),
        (
            "decide",
            json!({}),
            "invalid_request",
            "missing field `approval_id`",
        ),
        (
            "decide",
            with("decision", json!("maybe")),
            "invalid_request",
            "unknown variant",
        ),
        (
            "decide",
            with("decision", json!("result")),
            "invalid_request",
            "`result` goes with",
        ),
        (
            "decide",
            json!({"approval_id": RUN, "request_id": "mine", "decision": "reject", "arguments": {}}),
            "invalid_request",
            "`arguments` and `scope` with `approve`",
        ),
        (
            "decide",
            json!({"approval_id": RUN, "request_id": "mine", "decision": "reject", "scope": "run"}),
            "invalid_request",
            "`scope` with `approve`",
        ),
        (
            "decide",
            with("decision", json!("raise")),
            "invalid_request",
            "`limits` with `raise`",
        ),
        (
            "decide",
            json!({"approval_id": RUN, "request_id": "mine", "decision": "stop", "limits": {}}),
            "invalid_request",
            "`limits` with `raise`",
        ),
        (
            "decide",
            json!({"approval_id": RUN, "request_id": "mine", "decision": "decline", "content": {}}),
            "invalid_request",
            "`content` with `accept`",
        ),
        ("pause", json!({}), "invalid_request", "`pause` is no verb"),
    ] {
        let bad = decode(verb, &fields).unwrap_err();
        assert_eq!(bad.code, code, "{verb} {fields}: {bad}");
        assert!(bad.message.contains(says), "{verb} {fields}: {bad}");
        if code != "invalid_run_id" {
            assert_eq!(bad.run_id.unwrap().to_string(), RUN);
        }
        let good = fields["request_id"] == "mine";
        assert_eq!(bad.request_id.as_deref(), good.then_some("mine"));
    }
    for body in ["", "nonsense", "[]", "7"] {
        let bad = ControlMessage::decode("cancel", body.as_bytes()).unwrap_err();
        assert_eq!((bad.code, bad.run_id), ("invalid_json", None), "{body}");
    }
    let twice = format!(r#"{{"v":1,"run_id":"{RUN}","reason":"a","reason":"b"}}"#);
    let bad = ControlMessage::decode("cancel", twice.as_bytes()).unwrap_err();
    assert!(bad.message.contains("duplicate field"), "{bad}");
}
