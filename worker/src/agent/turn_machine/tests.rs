use baton_protocol::{ApprovalScope, UseLimits};
use proptest::prelude::*;

use super::*;

const LIMITS: RunLimits = RunLimits::of_turns(3);

fn call(id: &str, side: CallSide) -> Call {
    Call {
        id: id.into(),
        name: "f".into(),
        arguments: "{}".into(),
        edited: false,
        side,
        needs_approval: false,
        resumes: None,
    }
}

fn turn(finish_reason: FinishReason, calls: Vec<Call>) -> FinishedTurn {
    let usage = Usage {
        prompt_tokens: 5,
        completion_tokens: 5,
        total_tokens: 10,
        estimated: false,
    };
    FinishedTurn {
        finish_reason,
        calls,
        usage,
    }
}

fn server(id: &str) -> Call {
    call(id, CallSide::Server(Effect::Pure))
}

#[test]
fn an_answer_ends_the_run() {
    let mut machine = TurnMachine::new(LIMITS);
    assert_eq!(machine.next(), Next::CallModel { step: 1 });
    machine.turn_finished(turn(FinishReason::Stop, vec![]));
    assert_eq!(
        machine.next(),
        Next::Finish(Outcome::Completed(FinishReason::Stop))
    );
}

#[test]
fn a_message_gives_a_run_with_an_answer_another_turn_while_a_limit_allows_one() {
    let answered = |limits| {
        let mut machine = TurnMachine::new(limits);
        machine.turn_finished(turn(FinishReason::Stop, vec![]));
        machine
    };
    let mut machine = answered(LIMITS);
    assert!(machine.may_go_on());
    machine.input_applied();
    assert_eq!(machine.next(), Next::CallModel { step: 3 });
    assert!(!machine.may_go_on(), "it has not ended");

    let one_turn = RunLimits {
        max_turns: 1,
        ..LIMITS
    };
    assert!(!answered(one_turn).may_go_on());
    let ten_tokens = RunLimits {
        max_total_tokens: Some(10),
        ..LIMITS
    };
    assert!(!answered(ten_tokens).may_go_on());
    for (reason, calls) in [
        (FinishReason::Length, vec![]),
        (FinishReason::ToolCalls, vec![call("c", CallSide::Client)]),
    ] {
        let mut machine = TurnMachine::new(LIMITS);
        machine.turn_finished(turn(reason, calls));
        assert!(!machine.may_go_on(), "{reason:?}");
    }
}

#[test]
fn a_resumed_run_goes_on_after_its_recorded_messages() {
    let recorded = [
        Recorded::Turn(turn(FinishReason::ToolCalls, vec![server("a")])),
        Recorded::CallFinished(2),
        Recorded::Input,
        Recorded::Turn(turn(FinishReason::Stop, vec![])),
        Recorded::Input,
    ];
    let machine = TurnMachine::resume(LIMITS, recorded.clone());
    assert_eq!(machine.next(), Next::CallModel { step: 6 });
    // A message that was withdrawn in time leaves an answer that is still to be ended.
    let machine = TurnMachine::resume(LIMITS, recorded[..4].to_vec());
    let end = Outcome::Completed(FinishReason::Stop);
    assert_eq!(machine.next(), Next::Finish(end));
}

#[test]
fn results_of_all_calls_come_before_the_next_turn() {
    let mut machine = TurnMachine::new(LIMITS);
    machine.turn_finished(turn(
        FinishReason::ToolCalls,
        vec![server("a"), server("b")],
    ));
    let Next::RunCalls(calls) = machine.next() else {
        panic!("{:?}", machine.next())
    };
    assert_eq!(
        calls.iter().map(|call| call.step).collect::<Vec<_>>(),
        [2, 3]
    );
    machine.call_finished(3);
    let Next::RunCalls(calls) = machine.next() else {
        panic!("{:?}", machine.next())
    };
    assert_eq!(calls[0].call.id, "a");
    machine.call_finished(2);
    assert_eq!(machine.next(), Next::CallModel { step: 4 });
}

#[test]
fn a_call_of_the_clients_ends_the_run_and_runs_no_tool() {
    let mut machine = TurnMachine::new(LIMITS);
    let calls = vec![server("a"), call("b", CallSide::Client)];
    let verdict = machine.turn_finished(turn(FinishReason::ToolCalls, calls));
    assert_eq!(
        verdict,
        TurnVerdict::Finish(Outcome::Completed(FinishReason::ToolCalls))
    );
}

#[test]
fn the_last_turn_may_answer_but_not_call() {
    let mut machine = TurnMachine::new(LIMITS);
    for _ in 0..2 {
        machine.turn_finished(turn(FinishReason::ToolCalls, vec![server("a")]));
        let Next::RunCalls(calls) = machine.next() else {
            panic!("{:?}", machine.next())
        };
        machine.call_finished(calls[0].step);
    }
    machine.turn_finished(turn(FinishReason::ToolCalls, vec![server("a")]));
    assert_eq!(
        machine.next(),
        Next::Finish(Outcome::Completed(FinishReason::MaxTurns))
    );
}

#[test]
fn arguments_that_were_cut_short_are_not_executed() {
    let mut machine = TurnMachine::new(LIMITS);
    machine.turn_finished(turn(FinishReason::Length, vec![server("a")]));
    assert_eq!(
        machine.next(),
        Next::Finish(Outcome::Completed(FinishReason::Length))
    );
}

#[test]
fn a_token_limit_stops_between_turns() {
    let limits = RunLimits {
        max_turns: 10,
        max_total_tokens: Some(10),
        ..LIMITS
    };
    let mut machine = TurnMachine::new(limits);
    machine.turn_finished(turn(FinishReason::ToolCalls, vec![server("a")]));
    assert_eq!(
        machine.next(),
        Next::Finish(Outcome::Completed(FinishReason::Length))
    );
}

#[test]
fn a_started_call_without_a_result_has_an_unknown_outcome() {
    let calls = vec![call("a", CallSide::Server(Effect::AtMostOnce)), server("b")];
    let machine = TurnMachine::resume(
        LIMITS,
        [
            Recorded::Turn(turn(FinishReason::ToolCalls, calls)),
            Recorded::CallStarted(2),
            Recorded::CallFinished(3),
        ],
    );
    let Next::Park(calls) = machine.next() else {
        panic!("{:?}", machine.next())
    };
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0].standing, Standing::OutcomeUnknown);
}

#[test]
fn a_run_is_parked_only_when_nothing_else_is_left_to_do() {
    let calls = vec![call("a", CallSide::Server(Effect::AtMostOnce)), server("b")];
    let mut machine = TurnMachine::resume(
        LIMITS,
        [
            Recorded::Turn(turn(FinishReason::ToolCalls, calls)),
            Recorded::CallStarted(2),
        ],
    );
    let Next::RunCalls(calls) = machine.next() else {
        panic!("{:?}", machine.next())
    };
    assert_eq!(calls[0].step, 3);
    machine.call_finished(3);
    assert!(matches!(machine.next(), Next::Park(calls) if calls[0].step == 2));
}

#[test]
fn a_decision_says_what_becomes_of_a_started_call() {
    let standing = |decision| {
        let calls = vec![call("a", CallSide::Server(Effect::AtMostOnce))];
        let machine = TurnMachine::resume(
            LIMITS,
            [
                Recorded::Turn(turn(FinishReason::ToolCalls, calls)),
                Recorded::CallDecided(2, decision),
            ],
        );
        match machine.next() {
            Next::RunCalls(calls) => calls[0].standing.clone(),
            other => panic!("{other:?}"),
        }
    };
    let settled = |ok, content: &str| Standing::Settled {
        ok,
        content: content.to_owned(),
    };
    assert_eq!(standing(Decision::Retry {}), Standing::Open);
    let result = "paid".to_owned();
    assert_eq!(standing(Decision::Result { result }), settled(true, "paid"));
    let reason = "not paid".to_owned();
    assert_eq!(
        standing(Decision::Fail { reason }),
        settled(false, "not paid")
    );
    let reason = String::new();
    assert_eq!(
        standing(Decision::Fail { reason }),
        settled(false, GIVEN_UP)
    );
}

fn guarded(id: &str, effect: Effect) -> Call {
    Call {
        needs_approval: true,
        ..call(id, CallSide::Server(effect))
    }
}

#[test]
fn a_call_that_needs_approval_is_asked_about_after_the_others_have_run() {
    let calls = vec![
        guarded("a", Effect::AtMostOnce),
        server("b"),
        guarded("c", Effect::Pure),
    ];
    let mut machine = TurnMachine::new(LIMITS);
    machine.turn_finished(turn(FinishReason::ToolCalls, calls));
    let Next::RunCalls(calls) = machine.next() else {
        panic!("{:?}", machine.next())
    };
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0].call.id, "b");
    machine.call_finished(3);
    let Next::Park(calls) = machine.next() else {
        panic!("{:?}", machine.next())
    };
    let asked: Vec<_> = calls
        .iter()
        .map(|call| (call.step, &call.standing))
        .collect();
    assert_eq!(
        asked,
        [(2, &Standing::NeedsApproval), (4, &Standing::NeedsApproval)]
    );
}

#[test]
fn an_approval_holds_until_the_call_has_begun_and_then_its_outcome_is_the_question() {
    let resumed = |entries: Vec<Recorded>| {
        let calls = vec![guarded("a", Effect::AtMostOnce)];
        let turn = Recorded::Turn(turn(FinishReason::ToolCalls, calls));
        TurnMachine::resume(LIMITS, std::iter::once(turn).chain(entries)).next()
    };
    let standing = |next: Next| match next {
        Next::RunCalls(calls) | Next::Park(calls) => calls[0].standing.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(standing(resumed(vec![])), Standing::NeedsApproval);
    let approved = Decision::Approve {
        arguments: None,
        scope: ApprovalScope::Once,
    };
    let approved = vec![Recorded::CallDecided(2, approved)];
    assert_eq!(standing(resumed(approved)), Standing::Open);
    let begun = resumed(vec![Recorded::CallStarted(2)]);
    assert!(matches!(begun, Next::Park(_)), "{begun:?}");
    assert_eq!(standing(begun), Standing::OutcomeUnknown);
}

#[test]
fn a_rejected_call_is_not_made_and_the_model_reads_why() {
    let content = |reason: &str| {
        let calls = vec![guarded("a", Effect::Pure)];
        let reason = reason.to_owned();
        let machine = TurnMachine::resume(
            LIMITS,
            [
                Recorded::Turn(turn(FinishReason::ToolCalls, calls)),
                Recorded::CallDecided(2, Decision::Reject { reason }),
            ],
        );
        match machine.next() {
            Next::RunCalls(calls) => match calls[0].standing.clone() {
                Standing::Settled { ok: false, content } => content,
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        content(""),
        "this call was not approved, and it was not made."
    );
    assert_eq!(
        content("too much"),
        "this call was not approved, and it was not made. The reason: too much"
    );
}

#[test]
fn a_started_call_that_may_be_repeated_asks_nobody() {
    for effect in [Effect::Pure, Effect::Idempotent] {
        let calls = vec![call("a", CallSide::Server(effect))];
        let machine = TurnMachine::resume(
            LIMITS,
            [
                Recorded::Turn(turn(FinishReason::ToolCalls, calls)),
                Recorded::CallStarted(2),
            ],
        );
        assert!(matches!(machine.next(), Next::RunCalls(_)), "{effect:?}");
    }
}

proptest! {
    /// Whatever the model does and in whichever order calls end: steps are dense, each call runs
    /// once and only if it needs no approval or has one, the turn limit holds, and resuming from any
    /// prefix of the ledger restores the state of the first worker.
    #[test]
    fn resuming_from_any_prefix_leads_to_the_same_place(
        script in prop::collection::vec((0usize..4, any::<u64>()), 1..8),
    ) {
        let limits = RunLimits::of_turns(5);
        let mut machine = TurnMachine::new(limits);
        let mut ledger = Vec::new();
        let mut seen_steps = Vec::new();
        let mut turns = 0;
        for (calls, order) in script {
            let Next::CallModel { step } = machine.next() else { break };
            seen_steps.push(step);
            turns += 1;
            let calls = (0..calls).map(|n| Call {
                needs_approval: order >> n & 1 == 1,
                ..server(&format!("{turns}-{n}"))
            });
            let calls = calls.collect();
            let finished = turn(FinishReason::ToolCalls, calls);
            ledger.push(Recorded::Turn(finished.clone()));
            machine.turn_finished(finished);
            let mut order = order;
            loop {
                let open = match machine.next() {
                    Next::RunCalls(open) => open,
                    Next::Park(waiting) => {
                        for call in waiting {
                            let approved = Decision::Approve {
        arguments: None,
        scope: ApprovalScope::Once,
    };
                            ledger.push(Recorded::CallDecided(call.step, approved));
                        }
                        machine = TurnMachine::resume(limits, ledger.clone());
                        continue;
                    }
                    Next::BeginGivenCalls
                    | Next::CallModel { .. }
                    | Next::ParkAtLimit(_)
                    | Next::AwaitTasks
                    | Next::HandBack { .. }
                    | Next::Finish(_) => break,
                };
                for call in &open {
                    let decided = ledger.iter().any(|entry| {
                        matches!(entry, Recorded::CallDecided(step, _) if *step == call.step)
                    });
                    prop_assert!(decided || !call.call.needs_approval, "a call ran unapproved");
                }
                let at = usize::try_from(order % open.len() as u64).unwrap();
                order = order.rotate_left(7);
                let step = open[at].step;
                prop_assert!(!seen_steps.contains(&step), "a call ran twice");
                seen_steps.push(step);
                ledger.push(Recorded::CallFinished(step));
                machine.call_finished(step);
                let resumed = TurnMachine::resume(limits, ledger.clone());
                prop_assert_eq!(resumed.next(), machine.next());
            }
            let resumed = TurnMachine::resume(limits, ledger.clone());
            prop_assert_eq!(resumed.next(), machine.next());
            prop_assert_eq!(resumed.usage(), machine.usage());
        }
        prop_assert!(turns <= limits.max_turns);
        seen_steps.sort_unstable();
        let dense: Vec<u32> = (1..=u32::try_from(seen_steps.len()).unwrap()).collect();
        prop_assert_eq!(seen_steps, dense);
    }
}

/// A run of given calls asks no model: it records its calls, makes them, and ends.
#[test]
fn a_run_of_given_calls_ends_with_the_last_result() {
    let once = CallSide::Server(Effect::AtMostOnce);
    let calls = || vec![server("a"), call("b", once)];
    let mut machine = TurnMachine::of_given_calls(LIMITS);
    assert_eq!(machine.next(), Next::BeginGivenCalls);
    let recorded = machine.given_calls_begun(calls());
    let steps: Vec<_> = recorded.iter().map(|recorded| recorded.step).collect();
    assert_eq!(steps, [1, 2], "no turn is before them");
    assert_eq!(machine.next(), Next::RunCalls(recorded));
    machine.call_finished(1);
    assert!(matches!(machine.next(), Next::RunCalls(rest) if rest.len() == 1));
    machine.call_finished(2);
    assert_eq!(
        machine.next(),
        Next::Finish(Outcome::Completed(FinishReason::Stop))
    );

    let lost = [
        Recorded::GivenCalls(calls()),
        Recorded::CallFinished(1),
        Recorded::CallStarted(2),
    ];
    let resumed = TurnMachine::of_given_calls(LIMITS).after(lost);
    assert!(matches!(resumed.next(), Next::Park(asked) if asked[0].step == 2));
}

fn limited(on_limit: OnLimit) -> RunLimits {
    RunLimits {
        most: UseLimits {
            max_tool_calls: Some(3),
            ..UseLimits::default()
        },
        on_limit,
        ..RunLimits::of_turns(9)
    }
}

fn two_calls() -> FinishedTurn {
    turn(FinishReason::ToolCalls, vec![server("a"), server("b")])
}

#[test]
fn a_turn_with_more_calls_than_are_left_ends_the_run_and_none_is_made() {
    let mut machine = TurnMachine::new(limited(OnLimit::Stop));
    machine.turn_finished(two_calls());
    machine.call_finished(2);
    machine.call_finished(3);
    let end = Outcome::Completed(FinishReason::MaxToolCalls);
    assert_eq!(
        machine.turn_finished(two_calls()),
        TurnVerdict::Finish(end.clone())
    );
    assert_eq!(machine.next(), Next::Finish(end));
}

/// The last turn has the results of the calls that were made, and a refusal for each other one. A takeover
/// in its middle comes to the same.
#[test]
fn at_the_limit_of_calls_the_model_hands_back_without_tools() {
    let mut machine = TurnMachine::new(limited(OnLimit::HandBack));
    machine.turn_finished(two_calls());
    machine.call_finished(2);
    machine.call_finished(3);
    let TurnVerdict::Continue(calls) = machine.turn_finished(two_calls()) else {
        panic!("it ends at once")
    };
    let open: Vec<_> = calls
        .iter()
        .map(|call| call.standing == Standing::Open)
        .collect();
    assert_eq!(open, [true, false]);
    assert_eq!(machine.next(), Next::RunCalls(calls.clone()));
    let resumed = TurnMachine::resume(
        limited(OnLimit::HandBack),
        [
            Recorded::Turn(two_calls()),
            Recorded::CallFinished(2),
            Recorded::CallFinished(3),
            Recorded::Turn(two_calls()),
        ],
    );
    assert_eq!(resumed.next(), Next::RunCalls(calls));
    machine.call_finished(5);
    machine.call_finished(6);
    assert_eq!(machine.next(), Next::HandBack { step: 7 });
    let end = Outcome::Completed(FinishReason::MaxToolCalls);
    assert_eq!(machine.turn_finished(two_calls()), TurnVerdict::Finish(end));
}

#[test]
fn a_limit_is_reached_once_and_its_name_is_the_end() {
    let mut stops = TurnMachine::new(limited(OnLimit::Stop));
    let by_cost = Outcome::Completed(FinishReason::MaxCost);
    assert_eq!(
        stops.limit_reached(FinishReason::MaxCost),
        AtLimit::Finish(by_cost.clone())
    );
    let mut hands_back = TurnMachine::new(limited(OnLimit::HandBack));
    let at_once = hands_back.limit_reached(FinishReason::MaxCost);
    assert_eq!(at_once, AtLimit::HandBack);
    assert_eq!(hands_back.next(), Next::HandBack { step: 1 });
    // Not even the last turn fits.
    assert_eq!(
        hands_back.limit_reached(FinishReason::MaxTokens),
        AtLimit::Finish(by_cost)
    );
}

/// None of the calls is made before the limit is raised. A takeover, a raise that is too low and one that
/// is enough come to what the limits say.
#[test]
fn at_the_limit_of_calls_the_run_waits_and_a_higher_limit_makes_them() {
    let mut machine = TurnMachine::new(limited(OnLimit::Park));
    machine.turn_finished(two_calls());
    machine.call_finished(2);
    machine.call_finished(3);
    let TurnVerdict::Continue(calls) = machine.turn_finished(two_calls()) else {
        panic!("it ends")
    };
    assert_eq!((calls.len(), machine.calls()), (2, 2));
    let waits = Next::ParkAtLimit(FinishReason::MaxToolCalls);
    assert_eq!(machine.next(), waits);
    let recorded = || {
        [
            Recorded::Turn(two_calls()),
            Recorded::CallFinished(2),
            Recorded::CallFinished(3),
            Recorded::Turn(two_calls()),
        ]
    };
    let resumed = |most| {
        let mut limits = limited(OnLimit::Park);
        limits.most.max_tool_calls = Some(most);
        TurnMachine::resume(limits, recorded())
    };
    assert_eq!(resumed(3).next(), waits);
    assert_eq!(resumed(4).next(), Next::RunCalls(calls));
    let mut stopped = resumed(3);
    stopped.stop_at_limit();
    let end = Next::Finish(Outcome::Completed(FinishReason::MaxToolCalls));
    assert_eq!(stopped.next(), end);
}

/// The limit decides whether another turn follows. Calls in the cut answer may lack arguments.
#[test]
fn an_answer_that_a_limit_cuts_off_does_not_end_a_run_that_may_wait() {
    let cut = |calls| turn(FinishReason::MaxTokens, calls);
    let mut machine = TurnMachine::new(limited(OnLimit::Park));
    let verdict = machine.turn_finished(cut(Vec::new()));
    assert_eq!(verdict, TurnVerdict::Continue(Vec::new()));
    assert_eq!(machine.next(), Next::CallModel { step: 2 });
    let limit = FinishReason::MaxTokens;
    assert_eq!(machine.limit_reached(limit), AtLimit::Park);
    machine.stop_at_limit();
    let end = Outcome::Completed(limit);
    assert_eq!(machine.limit_reached(limit), AtLimit::Finish(end.clone()));

    let mut machine = TurnMachine::new(limited(OnLimit::Park));
    let TurnVerdict::Continue(calls) = machine.turn_finished(cut(vec![server("a")])) else {
        panic!("it ends")
    };
    assert!(matches!(
        calls[0].standing,
        Standing::Settled { ok: false, .. }
    ));
    assert_eq!(machine.calls(), 0);

    let client = Call {
        side: CallSide::Client,
        ..server("c")
    };
    let verdict = TurnMachine::new(limited(OnLimit::Park)).turn_finished(cut(vec![client]));
    assert_eq!(verdict, TurnVerdict::Finish(end.clone()));
    let verdict = TurnMachine::new(limited(OnLimit::Stop)).turn_finished(cut(Vec::new()));
    assert_eq!(verdict, TurnVerdict::Finish(end));
}

/// A run that begins with approved calls makes them unasked, and its model goes on with their results; so does a
/// worker that takes the run over.
#[test]
fn a_run_of_approved_calls_goes_on_with_the_model() {
    let limits = RunLimits::of_turns(3);
    let calls = || vec![server("a"), server("b")];
    let mut machine = TurnMachine::of_approved_calls(limits);
    assert_eq!(machine.next(), Next::BeginGivenCalls);
    let recorded = machine.given_calls_begun(calls());
    assert_eq!(machine.next(), Next::RunCalls(recorded));
    machine.call_finished(1);
    assert!(
        machine.is_last_call(2),
        "a message may wait for the turn after it"
    );
    machine.call_finished(2);
    assert_eq!(machine.next(), Next::CallModel { step: 3 });

    let entries = [Recorded::GivenCalls(calls()), Recorded::CallFinished(1)];
    let mut resumed = TurnMachine::of_approved_calls(limits).after(entries);
    let Next::RunCalls(left) = resumed.next() else {
        panic!("{:?}", resumed.next());
    };
    assert_eq!(left.len(), 1);
    resumed.call_finished(2);
    assert_eq!(resumed.next(), Next::CallModel { step: 3 });
}

fn paused(requests: usize, given: Option<Decision>) -> Resumption {
    let request = baton_protocol::InputRequest {
        id: "who".to_owned(),
        message: "Who?".to_owned(),
        schema: None,
        url: None,
    };
    let asked = baton_protocol::RequestedInput {
        round: 1,
        requests: vec![request; requests],
    };
    Resumption {
        pause: CallPause::Input { asked, state: None },
        given,
        started: EventId::new(1, 7),
    }
}

/// A call that waits for the answer to its server's questions is not asked about again for another reason, and is
/// made again with the answer. Without a question it is made again at once.
#[test]
fn a_call_that_its_server_has_left_goes_on_from_there() {
    let guarded = Call {
        needs_approval: true,
        ..call("pay", CallSide::Server(Effect::AtMostOnce))
    };
    let turn = FinishedTurn {
        finish_reason: FinishReason::ToolCalls,
        calls: vec![guarded.clone()],
        usage: Usage::default(),
    };
    let limits = RunLimits::of_turns(8);
    for (requests, given, stands) in [
        (1, None, Standing::NeedsInput),
        (0, None, Standing::Open),
        (1, Some(Decision::Decline {}), Standing::Open),
    ] {
        let resumption = paused(requests, given.clone());
        let resumed = Call {
            resumes: Some(Arc::new(resumption.clone())),
            ..guarded.clone()
        };
        let turn_again = FinishedTurn {
            calls: vec![resumed],
            ..turn.clone()
        };
        let mut entries = vec![Recorded::Turn(turn_again), Recorded::CallPaused(2)];
        entries.extend(given.map(|given| Recorded::CallDecided(2, given)));
        let taken_over = TurnMachine::resume(limits, entries.clone());
        let mut machine = TurnMachine::resume(limits, [Recorded::Turn(turn.clone())]);
        machine.call_paused(2, resumption);
        for next in [taken_over.next(), machine.next()] {
            let (Next::Park(calls) | Next::RunCalls(calls)) = &next else {
                panic!("{next:?}");
            };
            assert_eq!(calls[0].standing, stands);
            let waits = stands == Standing::NeedsInput;
            assert_eq!(matches!(next, Next::Park(_)), waits, "{next:?}");
            let resumes = calls[0].call.resumes.as_ref().unwrap();
            assert_eq!(resumes.started, EventId::new(1, 7));
        }
        // Begun again by a worker that was lost.
        entries.push(Recorded::CallStarted(2));
        let Next::Park(calls) = TurnMachine::resume(limits, entries).next() else {
            panic!("it may have taken effect");
        };
        assert_eq!(calls[0].standing, Standing::OutcomeUnknown);
        assert!(calls[0].call.resumes.is_some(), "a retry sends the answer");
    }
}

/// A task that the server was asked about just now waits, and a later attempt asks again: never for a person, and
/// never as an unknown outcome, because asking begins nothing.
#[test]
fn a_call_with_a_task_waits_after_each_question_and_is_asked_about_by_the_next_attempt() {
    let task = baton_protocol::RemoteTask::new("t".to_owned(), chrono::DateTime::UNIX_EPOCH);
    let resumption = Resumption {
        pause: CallPause::Task { task },
        given: None,
        started: EventId::new(1, 7),
    };
    let pay = call("pay", CallSide::Server(Effect::AtMostOnce));
    let guarded = Call {
        needs_approval: true,
        ..call("mail", CallSide::Server(Effect::AtMostOnce))
    };
    let turn = |pay: Call| FinishedTurn {
        finish_reason: FinishReason::ToolCalls,
        calls: vec![pay, guarded.clone()],
        usage: Usage::default(),
    };
    let limits = RunLimits::of_turns(8);
    let mut machine = TurnMachine::resume(limits, [Recorded::Turn(turn(pay.clone()))]);
    machine.call_paused(2, resumption.clone());
    let Next::Park(asked) = machine.next() else {
        panic!("the other call waits for a person");
    };
    assert_eq!((asked.len(), asked[0].step), (1, 3));
    machine.call_finished(3);
    assert_eq!(machine.next(), Next::AwaitTasks);

    let resumed = Call {
        resumes: Some(Arc::new(resumption)),
        ..pay
    };
    let entries = [
        Recorded::Turn(turn(resumed)),
        Recorded::CallPaused(2),
        Recorded::CallFinished(3),
    ];
    let Next::RunCalls(calls) = TurnMachine::resume(limits, entries).next() else {
        panic!("the next attempt asks about the task");
    };
    assert_eq!((calls.len(), &calls[0].standing), (1, &Standing::Open));
}
