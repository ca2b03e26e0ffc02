//! `calculator`: arithmetic with precedence, functions, percentages and units.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use baton_protocol::Effect;
use fend_core::{Context, Interrupt, evaluate_with_interrupt};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::{Tool, ToolContext, ToolError, ToolSpec};

/// The longest expression, in bytes. The library recurses once or more a byte.
const MAX_EXPRESSION: usize = 500;
/// The stack of an evaluation, in bytes: several times what the deepest expression of that length
/// needs. The end of a stack is the end of the process, and no panic that could be contained. Only
/// the part that is touched takes memory.
const STACK: usize = 64 << 20;
/// How long one evaluation may compute.
const MAX_COMPUTATION: Duration = Duration::from_secs(2);
/// Characters of the library's language that define functions, bind variables or begin text. None
/// is arithmetic, and a function may call itself until the stack ends.
const REFUSED: [char; 12] = ['=', ':', ';', '\\', '"', '\'', '@', '#', '{', '}', '[', ']'];

/// The tool.
#[derive(Debug, Clone, Copy)]
pub struct Calculator;

impl Calculator {
    /// What the model is told.
    pub fn spec(timeout: Duration) -> ToolSpec {
        ToolSpec {
            name: "calculator".to_owned(),
            description: "Evaluates an arithmetic expression exactly. Understands + - * / ^ and \
                brackets, percentages (`15% of 847`, `847 * 15%`), functions (sqrt, cbrt, abs, \
                exp, ln, log10, log2, sin, cos, tan, asin, acos, atan, floor, ceil, round), \
                factorials (`5!`), pi, e, and conversions of units (`5 km to miles`)."
                .to_owned(),
            parameters: json!({
                "type": "object",
                "properties": {
                    "expression": {
                        "type": "string",
                        "minLength": 1,
                        "maxLength": MAX_EXPRESSION,
                        "description": "For instance: 847 * 15%",
                    },
                },
                "required": ["expression"],
                "additionalProperties": false,
            }),
            effect: Effect::Pure,
            timeout,
        }
    }
}

impl Tool for Calculator {
    fn call<'a>(
        &'a self,
        arguments: Value,
        _context: &'a ToolContext,
    ) -> BoxFuture<'a, Result<String, ToolError>> {
        async move {
            let expression = arguments["expression"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            let stop = StopOnDrop(Arc::new(Deadline {
                until: Instant::now() + MAX_COMPUTATION,
                dropped: AtomicBool::new(false),
            }));
            let deadline = stop.0.clone();
            let (done, value) = oneshot::channel();
            std::thread::Builder::new()
                .name("calculator".to_owned())
                .stack_size(STACK)
                .spawn(move || {
                    // Nobody waits any more: then nobody misses it.
                    let _ = done.send(evaluate(&expression, &*deadline));
                })
                .map_err(|_| ToolError::Failed("the calculator is overloaded".to_owned()))?;
            // A panic drops the sender.
            value
                .await
                .map_err(|_| ToolError::Panicked)?
                .map_err(ToolError::Arguments)
        }
        .boxed()
    }
}

/// Ends a computation when its time is up, or when nobody waits for it any more.
struct Deadline {
    until: Instant,
    dropped: AtomicBool,
}

impl Interrupt for Deadline {
    fn should_interrupt(&self) -> bool {
        self.dropped.load(Ordering::Relaxed) || Instant::now() >= self.until
    }
}

struct StopOnDrop(Arc<Deadline>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.dropped.store(true, Ordering::Relaxed);
    }
}

/// The value of an expression, or what is wrong with it, in words for the model.
fn evaluate(expression: &str, interrupt: &impl Interrupt) -> Result<String, String> {
    let expression = expression.trim();
    if expression.is_empty() {
        return Err("The expression is empty.".to_owned());
    }
    if expression.len() > MAX_EXPRESSION {
        return Err(format!(
            "The expression is longer than {MAX_EXPRESSION} bytes."
        ));
    }
    if let Some(refused) = expression
        .chars()
        .find(|c| REFUSED.contains(c) || c.is_control())
    {
        return Err(format!(
            "`{refused}` is not part of an arithmetic expression."
        ));
    }
    check_brackets(expression)?;
    let mut context = Context::new();
    context.disable_rng();
    // As a plain number: the library prints `847*15%` as 12705%.
    let number = format!("({expression}) to 1");
    let value = match evaluate_with_interrupt(&number, &mut context, interrupt) {
        Ok(value) => value,
        Err(_) if interrupt.should_interrupt() => {
            return Err(too_long());
        }
        // A quantity with a unit is no plain number.
        Err(_) => match evaluate_with_interrupt(expression, &mut context, interrupt) {
            Ok(value) => value,
            Err(_) if interrupt.should_interrupt() => return Err(too_long()),
            Err(reason) => {
                return Err(format!("`{expression}` cannot be evaluated: {reason}."));
            }
        },
    };
    let text = value.get_main_result();
    let text = text.strip_prefix("approx. ").unwrap_or(text).trim();
    if text.is_empty() {
        return Err(format!("`{expression}` has no value."));
    }
    Ok(text.to_owned())
}

fn too_long() -> String {
    format!(
        "The computation takes longer than {} seconds; ask for less.",
        MAX_COMPUTATION.as_secs()
    )
}

/// The library takes what is not closed as closed at the end, which is not what was meant.
fn check_brackets(expression: &str) -> Result<(), String> {
    let mut open = 0_u32;
    for c in expression.chars() {
        match c {
            '(' => open += 1,
            ')' => {
                open = open
                    .checked_sub(1)
                    .ok_or("A closing bracket has no opening one before it.")?;
            }
            _ => {}
        }
    }
    match open {
        0 => Ok(()),
        1 => Err("A bracket is not closed.".to_owned()),
        open => Err(format!("{open} brackets are not closed.")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Never;

    impl Interrupt for Never {
        fn should_interrupt(&self) -> bool {
            false
        }
    }

    fn value(expression: &str) -> String {
        evaluate(expression, &Never).unwrap_or_else(|error| panic!("{expression}: {error}"))
    }

    fn mistake(expression: &str) -> String {
        evaluate(expression, &Never).expect_err(expression)
    }

    #[test]
    fn expressions_have_the_value_that_a_person_expects() {
        for (expression, expected) in [
            ("15% of 847", "127.05"),
            ("847*15%", "127.05"),
            ("847 * 0.15", "127.05"),
            ("(15/100)*847", "127.05"),
            ("1+2*3", "7"),
            ("(1+2)*3", "9"),
            ("2^3^2", "512"),
            ("-2^2", "-4"),
            ("10 - 4 - 3", "3"),
            ("7/2", "3.5"),
            ("0.1+0.2", "0.3"),
            ("1e3 + 1", "1001"),
            ("sqrt(16)", "4"),
            ("sqrt(2)", "1.4142135624"),
            ("sin(pi/2)", "1"),
            ("cos(0)", "1"),
            ("abs(-5)", "5"),
            ("5!", "120"),
            ("2**10", "1024"),
            ("100 mod 7", "2"),
            ("50%", "0.5"),
            ("123456789 * 987654321", "121932631112635269"),
            ("5 km to m", "5000 m"),
        ] {
            assert_eq!(value(expression), expected, "{expression}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        assert!(
            mistake("2+").contains("`2+` cannot be evaluated"),
            "{}",
            mistake("2+")
        );
        assert!(
            mistake("1/0").contains("division by zero"),
            "{}",
            mistake("1/0")
        );
        assert!(
            mistake("hello there").contains("unknown identifier"),
            "{}",
            mistake("hello")
        );
        assert_eq!(mistake("(1+2"), "A bracket is not closed.");
        assert_eq!(mistake("((1+2"), "2 brackets are not closed.");
        assert_eq!(
            mistake("1+2)"),
            "A closing bracket has no opening one before it."
        );
        assert_eq!(mistake("  "), "The expression is empty.");
        assert!(mistake(&"1+".repeat(300)).contains("longer than"));
    }

    #[test]
    fn functions_variables_and_text_are_not_arithmetic() {
        for expression in [
            r"(\x. x x)(\x. x x)",
            "(x: x x)(x: x x)",
            "x => x",
            "a = 5; a",
            "\"text\"",
            "@debug 1",
        ] {
            assert!(
                mistake(expression).contains("not part of an arithmetic"),
                "{expression}"
            );
        }
        assert!(
            evaluate("roll d6", &Never).is_err(),
            "no randomness in a pure tool"
        );
    }

    #[test]
    fn computations_without_end_are_ended() {
        for expression in ["9^9^9^9", "(10^9)!", "2^(10^12)", "1.0000001^(10^12)"] {
            let deadline = Deadline {
                until: Instant::now() + Duration::from_millis(100),
                dropped: AtomicBool::new(false),
            };
            let started = Instant::now();
            assert!(evaluate(expression, &deadline).is_err(), "{expression}");
            assert!(started.elapsed() < Duration::from_secs(5), "{expression}");
        }
    }

    /// On a quarter of the stack.
    #[test]
    fn the_deepest_nesting_that_fits_leaves_the_stack_whole() {
        let deepest = [
            format!("{}1{}", "(".repeat(249), ")".repeat(249)),
            format!("{}1", "-".repeat(499)),
            format!("1{}", "^1".repeat(249)),
            format!("1{}", "!".repeat(499)),
            format!("1{}", "+1".repeat(249)),
            format!("{}4", "sqrt ".repeat(99)),
            format!("{}4{}", "sqrt(".repeat(82), ")".repeat(82)),
            "1/".repeat(249) + "1",
            "1 ".repeat(249),
            "m ".repeat(249),
        ];
        let threads: Vec<_> = deepest
            .into_iter()
            .map(|expression| {
                std::thread::Builder::new()
                    .stack_size(STACK / 4)
                    .spawn(move || {
                        let deadline = Deadline {
                            until: Instant::now() + MAX_COMPUTATION,
                            dropped: AtomicBool::new(false),
                        };
                        evaluate(&expression, &deadline)
                            .map_err(|error| (expression, error))
                            .ok()
                    })
                    .unwrap()
            })
            .collect();
        let values: Vec<_> = threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect();
        assert_eq!(values[0].as_deref(), Some("1"));
    }
}
