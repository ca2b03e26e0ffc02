//! The variables in an agent's instructions.
//!
//! A variable is a name from a fixed list in `{{…}}`. There are no expressions, and a value is inserted
//! as it is: braces in it are text. So no value can read anything else or make another one.

use serde_json::value::RawValue;

use crate::raw_fields::RawFields;

/// The longest value that is inserted, in characters.
const MAX_VALUE: usize = 1_000;

/// A variable of instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variable<'a> {
    /// `{{date}}`: the day on which the run is accepted, UTC.
    Date,
    /// `{{user_name}}`: the name of the person who signed in.
    UserName,
    /// `{{metadata.KEY}}`: the value of a field of the run's metadata.
    Metadata(&'a str),
}

/// Instructions with braces that are no variable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidVariable {
    /// There is no such variable.
    #[error(
        "`instructions` has the unknown variable `{{{{{0}}}}}`: there are {{{{date}}}}, \
         {{{{user_name}}}} and {{{{metadata.KEY}}}}; write `\\{{{{` for literal braces"
    )]
    Unknown(String),
    /// The braces are not closed.
    #[error("`instructions` has `{{{{` without `}}}}`: write `\\{{{{` for literal braces")]
    Open,
}

/// The values of the variables in one run.
#[derive(Debug, Clone, Copy)]
pub struct InstructionValues<'a> {
    /// The day, such as `2026-11-29`.
    pub date: &'a str,
    /// The person's name, or an empty text.
    pub user_name: &'a str,
    /// The run's metadata.
    pub metadata: Option<&'a RawFields>,
}

/// A part of instructions.
enum Piece<'a> {
    Text(&'a str),
    Variable(Variable<'a>),
}

/// Returns the variables of instructions.
pub fn variables(instructions: &str) -> Result<Vec<Variable<'_>>, InvalidVariable> {
    let pieces = pieces(instructions)?.into_iter();
    let variables = pieces.filter_map(|piece| match piece {
        Piece::Variable(variable) => Some(variable),
        Piece::Text(_) => None,
    });
    Ok(variables.collect())
}

/// Replaces the variables. A metadata field that is absent leaves nothing; one that is no text is
/// written as JSON. Of a long value the first 1,000 characters are taken.
pub fn render(
    instructions: &str,
    values: InstructionValues<'_>,
) -> Result<String, InvalidVariable> {
    let mut rendered = String::with_capacity(instructions.len());
    for piece in pieces(instructions)? {
        match piece {
            Piece::Text(text) => rendered.push_str(text),
            Piece::Variable(Variable::Date) => rendered.push_str(values.date),
            Piece::Variable(Variable::UserName) => insert(&mut rendered, values.user_name),
            Piece::Variable(Variable::Metadata(key)) => {
                if let Some(value) = values.metadata.and_then(|metadata| metadata.get(key)) {
                    insert(&mut rendered, &text_of(value));
                }
            }
        }
    }
    Ok(rendered)
}

fn insert(rendered: &mut String, value: &str) {
    let shown = value.chars().filter(|character| !character.is_control());
    rendered.extend(shown.take(MAX_VALUE));
}

/// The text of a JSON string, or the JSON of another value.
fn text_of(value: &RawValue) -> String {
    serde_json::from_str::<String>(value.get()).unwrap_or_else(|_| value.get().to_owned())
}

fn pieces(instructions: &str) -> Result<Vec<Piece<'_>>, InvalidVariable> {
    let mut pieces = Vec::new();
    let mut rest = instructions;
    while let Some(at) = rest.find("{{") {
        let (before, braces) = rest.split_at(at);
        if let Some(before) = before.strip_suffix('\\') {
            pieces.extend([Piece::Text(before), Piece::Text("{{")]);
            rest = &braces[2..];
            continue;
        }
        pieces.push(Piece::Text(before));
        let (name, after) = braces[2..].split_once("}}").ok_or(InvalidVariable::Open)?;
        pieces.push(Piece::Variable(variable(name)?));
        rest = after;
    }
    pieces.push(Piece::Text(rest));
    Ok(pieces)
}

fn variable(name: &str) -> Result<Variable<'_>, InvalidVariable> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    let is_key = |key: &&str| (1..=64).contains(&key.len()) && key.bytes().all(allowed);
    match name.trim() {
        "date" => Ok(Variable::Date),
        "user_name" => Ok(Variable::UserName),
        other => {
            let key = other.strip_prefix("metadata.").filter(is_key);
            let unknown = || InvalidVariable::Unknown(other.chars().take(40).collect());
            key.map(Variable::Metadata).ok_or_else(unknown)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(instructions: &str, metadata: &str) -> String {
        let metadata: RawFields = serde_json::from_str(metadata).unwrap();
        let values = InstructionValues {
            date: "2026-11-29",
            user_name: "Ada",
            metadata: Some(&metadata),
        };
        render(instructions, values).unwrap()
    }

    #[test]
    fn variables_are_replaced_and_values_are_not_read_again() {
        for (instructions, metadata, text) in [
            ("It is {{date}}.", "{}", "It is 2026-11-29."),
            (
                "{{ user_name }}: {{metadata.plan}}",
                r#"{"plan":"pro"}"#,
                "Ada: pro",
            ),
            (
                "[{{metadata.n}}|{{metadata.none}}]",
                r#"{"n":[1,2]}"#,
                "[[1,2]|]",
            ),
            ("{{metadata.x}}", r#"{"x":"{{date}}\u0007"}"#, "{{date}}"),
            (r"\{{date}} {{date}}", "{}", "{{date}} 2026-11-29"),
            ("{ {date}", "{}", "{ {date}"),
        ] {
            assert_eq!(rendered(instructions, metadata), text, "{instructions}");
        }
        let long = format!(r#"{{"x":"{}"}}"#, "é".repeat(2_000));
        assert_eq!(rendered("{{metadata.x}}", &long), "é".repeat(1_000));
    }

    #[test]
    fn what_is_no_variable_is_refused_by_its_name() {
        for (instructions, named) in [
            ("{{today}}", "`{{today}}`"),
            ("{{metadata.}}", "`{{metadata.}}`"),
            ("{{metadata.a.b}}", "`{{metadata.a.b}}`"),
            ("{{date", "without `}}`"),
            ("{{env.HOME}}", "{{metadata.KEY}}"),
        ] {
            let error = variables(instructions).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
