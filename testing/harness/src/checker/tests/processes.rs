//! The rules for the end of processes and for their memory.

use super::*;

#[test]
fn a_process_that_does_not_stop_or_ends_without_a_reason_breaks_i16() {
    let ended_after = |lived_ms, killed, terminations, status, took_ms| {
        after(|history| {
            let asked = Asked {
                killed,
                terminations,
                frozen: false,
            };
            let role = "worker".to_owned();
            note(
                history,
                What::Ended {
                    role,
                    asked,
                    status,
                    took_ms,
                    lived_ms,
                },
            );
        })
    };
    let ended = |killed, terminations, status, took_ms| {
        ended_after(100, killed, terminations, status, took_ms)
    };
    assert!(ended(true, 0, 137, 0).is_empty());
    assert!(ended(false, 1, 0, 5_000).is_empty());
    assert!(ended(false, 2, 143, 100).is_empty());
    assert!(ended(false, 0, 1, 0).is_empty());
    assert_eq!(ended(false, 1, 0, 60_000), ["I16"]);
    assert_eq!(ended(false, 2, 143, 20_000), ["I16"]);
    assert_eq!(ended(false, 1, 143, 10), ["I16"]);
    assert_eq!(ended(false, 0, 134, 0), ["I16"]);
    assert_eq!(ended_after(100_000, false, 0, 1, 0), ["I16"]);
    assert!(ended_after(100_000, false, 1, 1, 0).is_empty());
}

#[test]
fn a_role_that_holds_without_bound_breaks_i14() {
    let holds = |resident| {
        let role = "ingress".to_owned();
        after(|history| note(history, What::Memory { role, resident }))
    };
    assert!(holds(100 << 20).is_empty());
    assert_eq!(holds(2 << 30), ["I14"]);
}
