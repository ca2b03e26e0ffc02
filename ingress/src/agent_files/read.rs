//! Reads the files of agents.
//!
//! An entry has the fields of an agent in the API, and `tenant`. Every mistake of every file is reported, with
//! its line.

use baton_admission::check_definition;
use baton_protocol::AgentDefinition;
use baton_service::Config;
use baton_service::config::AgentFile;
use serde::Deserialize;
use serde_json::{Map, Value};
use toml::Spanned;

use crate::routes::agents::MOST_FILE_AGENTS;

/// An agent of a file.
#[derive(Debug, Clone)]
pub(crate) struct FiledAgent {
    /// The file and the line where it begins.
    pub(super) place: String,
    /// The name or the id of the only tenant that has it; `None` if all have it.
    pub(super) tenant: Option<String>,
    pub(super) definition: AgentDefinition,
}

/// The mistakes of the files, each on a line of its own.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("\n  "))]
pub(crate) struct AgentMistakes(Vec<String>);

/// A file in TOML.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    agents: Vec<Spanned<toml::Table>>,
}

/// Reads and checks the agents of a configuration.
pub(crate) fn read(config: &Config) -> Result<Vec<FiledAgent>, AgentMistakes> {
    let tools: Vec<_> = config.tool_names().collect();
    let mut agents: Vec<FiledAgent> = Vec::new();
    let mut mistakes = Vec::new();
    for file in config.agents.files() {
        let document: Document = match toml::from_str(&file.text) {
            Ok(document) => document,
            Err(error) => {
                let place = place(file, error.span().map_or(0, |span| span.start));
                mistakes.push(format!("{place}: {}", error.message().trim_end()));
                continue;
            }
        };
        for entry in document.agents {
            match Entry::new(file, entry).read(&tools) {
                Err(found) => mistakes.extend(found),
                Ok(agent) => {
                    if let Some(other) = agents.iter().find(|other| agent.excludes(other)) {
                        mistakes.push(format!(
                            "{}: the agent `{}` is at {} too: give one of them another name",
                            agent.place, agent.definition.name, other.place
                        ));
                    }
                    agents.push(agent);
                }
            }
        }
    }
    if agents.len() > MOST_FILE_AGENTS as usize {
        mistakes.push(format!(
            "{} agents are in the files, of at most {MOST_FILE_AGENTS}: take some out",
            agents.len()
        ));
    }
    if mistakes.is_empty() {
        Ok(agents)
    } else {
        Err(AgentMistakes(mistakes))
    }
}

impl FiledAgent {
    /// Returns whether a tenant would have both agents under one name.
    fn excludes(&self, other: &Self) -> bool {
        let shared = match (&self.tenant, &other.tenant) {
            (Some(one), Some(other)) => one == other,
            _ => true,
        };
        shared && self.definition.name == other.definition.name
    }
}

/// An agent in a file, before it is read.
struct Entry<'f> {
    file: &'f AgentFile,
    start: usize,
    fields: toml::Table,
}

impl<'f> Entry<'f> {
    fn new(file: &'f AgentFile, entry: Spanned<toml::Table>) -> Self {
        Self {
            file,
            start: entry.span().start,
            fields: entry.into_inner(),
        }
    }

    /// Reads the entry, or returns its mistakes.
    fn read(mut self, tools: &[String]) -> Result<FiledAgent, Vec<String>> {
        let tenant = match self.fields.remove("tenant") {
            None => None,
            Some(toml::Value::String(tenant)) => Some(tenant),
            Some(_) => {
                let message =
                    "`tenant` is the name of a tenant, or its id; leave it out for all tenants";
                return Err(vec![self.mistake("tenant", message)]);
            }
        };
        let fields = self.fields.iter();
        let given: Map<String, Value> = fields
            .map(|(field, value)| (field.clone(), json(value)))
            .collect();
        let definition = definition(&given).map_err(|error| self.wrong_fields(&given, &error))?;
        check_definition(&definition, tools).map_err(|invalid| {
            let field = invalid.param.split(['.', '[']).next().unwrap_or_default();
            vec![self.mistake(field, &invalid.message)]
        })?;
        Ok(FiledAgent {
            place: place(self.file, self.start),
            tenant,
            definition,
        })
    }

    /// Tries each field on an agent that is otherwise valid, because serde stops at the first error and does
    /// not say where it is.
    fn wrong_fields(&self, given: &Map<String, Value>, whole: &str) -> Vec<String> {
        let mut mistakes = Vec::new();
        for (field, value) in given {
            let mut alone = Map::from_iter([("name".to_owned(), Value::from("a"))]);
            alone.insert(field.clone(), value.clone());
            if let Err(error) = definition(&alone) {
                let message = if error.starts_with("unknown field") {
                    error
                } else {
                    format!("`{field}`: {error}")
                };
                mistakes.push(self.mistake(field, &message));
            }
        }
        if mistakes.is_empty() {
            mistakes.push(self.mistake("", whole));
        }
        mistakes
    }

    /// Returns a mistake in a field, or in the whole entry.
    fn mistake(&self, field: &str, message: &str) -> String {
        let place = place(self.file, self.find(field).unwrap_or(self.start));
        match self.fields.get("name") {
            Some(toml::Value::String(name)) => format!("{place}: agent `{name}`: {message}"),
            _ => format!("{place}: {message}"),
        }
    }

    /// Finds the first line of the entry that sets a field. The reader of TOML keeps no place of a field that
    /// is a table.
    fn find(&self, field: &str) -> Option<usize> {
        let mut at = self.start;
        let entry = self.file.text.get(self.start..)?;
        for (number, line) in entry.split_inclusive('\n').enumerate() {
            let text = line.trim_start();
            if number > 0 && text.starts_with("[[agents]]") {
                break;
            }
            let mut tables = ["[agents.", "[[agents."].into_iter();
            let table = tables.find_map(|start| text.strip_prefix(start));
            let rest = table.unwrap_or(text).strip_prefix(field);
            let ends: &[char] = if table.is_some() {
                &['.', ']']
            } else {
                &['.', '=']
            };
            if !field.is_empty() && rest.is_some_and(|rest| rest.trim_start().starts_with(ends)) {
                return Some(at);
            }
            at += line.len();
        }
        None
    }
}

/// Reads a definition, or returns the mistake.
fn definition(fields: &Map<String, Value>) -> Result<AgentDefinition, String> {
    // A text, because a definition keeps the JSON of some fields as it is written.
    let text = serde_json::to_string(fields).map_err(|error| error.to_string())?;
    serde_json::from_str(&text).map_err(|error| {
        let mut message = error.to_string();
        // The place is one in that text.
        if let Some(end) = message.rfind(" at line ") {
            message.truncate(end);
        }
        message
    })
}

/// Returns the file and the line of a byte.
fn place(file: &AgentFile, at: usize) -> String {
    let before = file.text.as_bytes().iter().take(at);
    let line = before.filter(|byte| **byte == b'\n').count() + 1;
    format!("{}:{line}", file.path.display())
}

/// Converts a value to JSON. A date becomes a text, and so does a number that JSON does not have.
fn json(value: &toml::Value) -> Value {
    match value {
        toml::Value::String(text) => text.as_str().into(),
        toml::Value::Integer(number) => (*number).into(),
        toml::Value::Float(number) => serde_json::Number::from_f64(*number)
            .map_or_else(|| number.to_string().into(), Value::Number),
        toml::Value::Boolean(is) => (*is).into(),
        toml::Value::Datetime(date) => date.to_string().into(),
        toml::Value::Array(values) => values.iter().map(json).collect(),
        toml::Value::Table(fields) => fields
            .iter()
            .map(|(field, value)| (field.clone(), json(value)))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use baton_service::config::AgentsConfig;

    use super::*;

    fn read_files(files: &[(&str, &str)]) -> Result<Vec<FiledAgent>, AgentMistakes> {
        let files = files.iter().map(|(path, text)| AgentFile {
            path: path.into(),
            text: (*text).to_owned(),
        });
        let config = Config {
            agents: AgentsConfig::of_files("agents", files.collect()),
            ..Config::default()
        };
        read(&config)
    }

    #[test]
    fn the_example_has_an_agent_for_all_tenants_and_one_for_one() {
        let example = include_str!("../../../deployments/agents.example.toml");
        let agents = read_files(&[("agents.toml", example)]).unwrap();
        let found: Vec<_> = agents
            .iter()
            .map(|agent| (&*agent.definition.name, agent.tenant.as_deref()))
            .collect();
        assert_eq!(found, [("support", None), ("clerk", Some("acme"))]);
        let clerk = serde_json::to_value(&agents[1].definition).unwrap();
        assert_eq!(clerk["limits"]["max_cost"], "0.50");
        assert!(clerk["text"]["format"]["schema"].is_object());
        assert!(clerk["tools"][0]["approval"]["when"].is_object());
    }

    #[test]
    fn every_mistake_of_every_file_is_reported_with_its_line() {
        let one = "[[agents]]\nname = \"a\"\nmodell = \"m\"\ntemperature = \"hot\"\n\n\
                   [[agents]]\nname = \"b\"\ntemperature = 3.0\n\n\
                   [[agents]]\nmodel = \"m\"\n\n\
                   [[agents]]\nname = \"c\"\ntools = [{ type = \"server\", name = \"shell\" }]\n\n\
                   [[agents]]\nname = \"d\"\ntenant = 7\n\n\
                   [[agents]]\nname = \"e\"\ntop_p = nan\n\n\
                   [[agents]]\nname = \"f\"\n[agents.text.format]\ntype = \"none\"\n";
        let two = "[[agents]]\nname = \n";
        let three = "[[agent]]\nname = \"x\"\n";
        let mistakes = read_files(&[("1.toml", one), ("2.toml", two), ("3.toml", three)]);
        let AgentMistakes(mistakes) = mistakes.unwrap_err();
        let expected = [
            ("1.toml:3: agent `a`: ", "unknown field `modell`"),
            ("1.toml:4: agent `a`: `temperature`: ", "f64"),
            ("1.toml:8: agent `b`: ", "from 0 to 2"),
            ("1.toml:10: ", "missing field `name`"),
            ("1.toml:15: agent `c`: ", "calculator"),
            ("1.toml:19: agent `d`: ", "leave it out for all tenants"),
            ("1.toml:23: agent `e`: `top_p`: ", "f64"),
            ("1.toml:27: agent `f`: `text`: ", "`none`"),
            ("2.toml:2: ", ""),
            ("3.toml:1: ", "`agents`"),
        ];
        assert_eq!(mistakes.len(), expected.len(), "{mistakes:#?}");
        for (mistake, (start, has)) in mistakes.iter().zip(expected) {
            assert!(
                mistake.starts_with(start) && mistake.contains(has),
                "{mistake}"
            );
        }
    }

    #[test]
    fn a_tenant_never_has_two_agents_of_one_name() {
        let agent = |tenant: &str| format!("[[agents]]\nname = \"a\"\n{tenant}\n");
        let (acme, other) = (agent("tenant = \"acme\""), agent("tenant = \"other\""));
        assert_eq!(read_files(&[("1", &acme), ("2", &other)]).unwrap().len(), 2);
        for twice in [&acme, &agent("")] {
            let refused = read_files(&[("1", &acme), ("2", twice)]).unwrap_err();
            let text = refused.to_string();
            assert!(
                text.contains("2:1: ") && text.contains("at 1:1 too"),
                "{text}"
            );
        }
    }
}
