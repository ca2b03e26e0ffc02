//! `calculator`: arithmetic with precedence, functions, percentages and units.

use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use baton_protocol::{Effect, ToolSource};
use fend_core::{Context, Interrupt, evaluate_with_interrupt};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::{Tool, ToolContext, ToolError, ToolSpec};

/// The longest expression, in bytes. The library recurses at least once per byte.
const MAX_EXPRESSION: usize = 500;
/// The stack of an evaluation, in bytes: several times what the deepest expression of that length
/// needs. An overflow would end the process, not cause a panic that could be contained. Only the
/// touched part takes memory.
const STACK: usize = 64 << 20;
/// The first time limit of an evaluation. Ordinary arithmetic needs less than a hundredth of it.
const QUICK: Duration = Duration::from_millis(25);
/// The second time limit, for evaluations that exceeded the first.
const MAX_COMPUTATION: Duration = Duration::from_millis(500);
/// Characters of the library's language that define functions, bind variables, begin text or shift
/// bits. None of them is arithmetic. A function may call itself until the stack overflows, and the
/// library never checks for an interrupt while it shifts.
const REFUSED: [char; 14] = [
    '=', ':', ';', '\\', '"', '\'', '@', '#', '{', '}', '[', ']', '<', '>',
];

/// The tool. Its computations share a few threads, because a long one would otherwise take the
/// processors from all other runs of the worker.
#[derive(Debug, Clone)]
pub struct Calculator {
    /// Permits to compute for [`QUICK`].
    quick: Arc<Semaphore>,
    /// Permits to compute for [`MAX_COMPUTATION`]; separate, so that quick computations never wait
    /// for slow ones.
    slow: Arc<Semaphore>,
}

impl Default for Calculator {
    /// Half of the processors for quick computations, and one thread for slow ones.
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        Self::new((cores / 2).max(1), 1)
    }
}

impl Calculator {
    /// Creates a calculator with at most this many threads for quick and for slow computations.
    fn new(quick: usize, slow: usize) -> Self {
        Self {
            quick: Arc::new(Semaphore::new(quick)),
            slow: Arc::new(Semaphore::new(slow)),
        }
    }

    /// Evaluates an expression within the quick time, or else as one of the slow ones.
    async fn compute(&self, expression: &str) -> Result<String, ToolError> {
        match in_turn(&self.quick, QUICK, expression).await? {
            Err(Mistake::TooLong) => {}
            done => return done.map_err(ToolError::from),
        }
        let done = in_turn(&self.slow, MAX_COMPUTATION, expression).await?;
        done.map_err(ToolError::from)
    }

    /// Returns the description for the model.
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
            source: ToolSource::BuiltIn,
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
            let expression = arguments["expression"].as_str().unwrap_or_default();
            self.compute(expression).await
        }
        .boxed()
    }
}

/// Evaluates an expression on a thread of its own, as soon as there is a permit for one.
async fn in_turn(
    permits: &Arc<Semaphore>,
    time: Duration,
    expression: &str,
) -> Result<Result<String, Mistake>, ToolError> {
    let overloaded = || ToolError::Failed("the calculator is overloaded".to_owned());
    let permit = Arc::clone(permits).acquire_owned().await;
    let permit = permit.map_err(|_| overloaded())?;
    let stop = StopOnDrop(Arc::new(Deadline {
        until: Instant::now() + time,
        dropped: AtomicBool::new(false),
    }));
    let computation = Computation {
        expression: expression.to_owned(),
        deadline: Arc::clone(&stop.0),
        _permit: permit,
    };
    let (done, value) = oneshot::channel();
    std::thread::Builder::new()
        .name("calculator".to_owned())
        .stack_size(STACK)
        .spawn(move || {
            let evaluated = evaluate(&computation.expression, &*computation.deadline);
            drop(computation);
            // The receiver is gone if the run was stopped meanwhile.
            let _ = done.send(evaluated);
        })
        .map_err(|_| overloaded())?;
    // A panic drops the sender.
    value.await.map_err(|_| ToolError::Panicked)
}

/// A pending evaluation. It holds the permit, because a caller that leaves does not end it at once.
struct Computation {
    expression: String,
    deadline: Arc<Deadline>,
    _permit: OwnedSemaphorePermit,
}

/// Ends a computation when its time is over, or when its caller has gone.
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

/// The reason why an expression has no value, in words for the model.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Mistake {
    #[error("{0}")]
    Expression(String),
    #[error(
        "The computation takes longer than {} milliseconds; ask for less.",
        MAX_COMPUTATION.as_millis()
    )]
    TooLong,
}

impl From<Mistake> for ToolError {
    fn from(mistake: Mistake) -> Self {
        Self::Arguments(mistake.to_string())
    }
}

/// Returns the value of an expression.
fn evaluate(expression: &str, interrupt: &impl Interrupt) -> Result<String, Mistake> {
    let expression = expression.trim();
    if expression.is_empty() {
        return Err(Mistake::Expression("The expression is empty.".to_owned()));
    }
    if expression.len() > MAX_EXPRESSION {
        return Err(Mistake::Expression(format!(
            "The expression is longer than {MAX_EXPRESSION} bytes."
        )));
    }
    if let Some(refused) = expression
        .chars()
        .find(|c| REFUSED.contains(c) || c.is_control())
    {
        return Err(Mistake::Expression(format!(
            "`{refused}` is not part of an arithmetic expression."
        )));
    }
    check_brackets(expression).map_err(Mistake::Expression)?;
    let mut context = Context::new();
    context.disable_rng();
    // As a plain number, because the library prints `847*15%` as 12705%.
    let number = format!("({expression}) to 1");
    let value = match evaluate_with_interrupt(&number, &mut context, interrupt) {
        Ok(value) => value,
        Err(_) if interrupt.should_interrupt() => return Err(Mistake::TooLong),
        // A quantity with a unit is not a plain number.
        Err(_) => match evaluate_with_interrupt(expression, &mut context, interrupt) {
            Ok(value) => value,
            Err(_) if interrupt.should_interrupt() => return Err(Mistake::TooLong),
            Err(reason) => {
                return Err(Mistake::Expression(format!(
                    "`{expression}` cannot be evaluated: {reason}."
                )));
            }
        },
    };
    let text = value.get_main_result();
    let text = text.strip_prefix("approx. ").unwrap_or(text).trim();
    if text.is_empty() {
        return Err(Mistake::Expression(format!("`{expression}` has no value.")));
    }
    Ok(text.to_owned())
}

/// Refuses unbalanced brackets. The library closes open ones at the end, which nobody means.
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
    use std::pin::pin;

    use futures_util::future::join_all;

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
        let mistake = evaluate(expression, &Never).expect_err(expression);
        mistake.to_string()
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
            "1<<1000000000",
            "1 >> 1",
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

    fn call(
        calculator: &Calculator,
        expression: &str,
    ) -> impl Future<Output = Result<String, String>> + use<> {
        let (calculator, expression) = (calculator.clone(), expression.to_owned());
        async move {
            let done = calculator.compute(&expression).await;
            done.map_err(|error| error.to_string())
        }
    }

    #[tokio::test]
    async fn a_computation_waits_for_a_permit_and_gives_it_back() {
        let calculator = Calculator::new(1, 1);
        let all = Arc::clone(&calculator.quick).acquire_owned().await.unwrap();
        let mut waiting = pin!(call(&calculator, "1+1"));
        assert_eq!(waiting.as_mut().now_or_never(), None);
        drop(all);
        assert_eq!(waiting.await.as_deref(), Ok("2"));
        assert_eq!(calculator.quick.available_permits(), 1);
    }

    #[tokio::test]
    async fn quick_computations_do_not_wait_for_slow_ones() {
        let calculator = Calculator::new(1, 1);
        let slow = Arc::clone(&calculator.slow).acquire_owned().await.unwrap();
        let mut hostile = pin!(join_all((0..8).map(|_| call(&calculator, "9^9^9"))));
        let quick = async {
            // By then all of them are in the queue.
            tokio::task::yield_now().await;
            call(&calculator, "6*7").await
        };
        tokio::select! {
            biased;
            ended = &mut hostile => panic!("{ended:?}"),
            answer = quick => assert_eq!(answer.as_deref(), Ok("42")),
        }
        drop(slow);
        for ended in hostile.await {
            let error = ended.unwrap_err();
            assert!(
                error.contains("takes longer than 500 milliseconds"),
                "{error}"
            );
        }
    }

    #[tokio::test]
    async fn a_caller_that_leaves_ends_its_computation_and_its_permit_comes_back() {
        let calculator = Calculator::new(1, 1);
        let mut left = Box::pin(call(&calculator, "9^9^9"));
        assert_eq!(left.as_mut().now_or_never(), None);
        assert_eq!(calculator.quick.available_permits(), 0);
        drop(left);
        let permit = calculator.quick.acquire().await;
        assert!(permit.is_ok());
    }

    /// Uses a quarter of the stack.
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
                            // Long enough for a build without optimisation.
                            until: Instant::now() + Duration::from_secs(10),
                            dropped: AtomicBool::new(false),
                        };
                        evaluate(&expression, &deadline).ok()
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
