//! `docs/configuration.md` is made from the doc comments of the configuration's structs.

use std::fmt::Write as _;

use baton_service::Config;
use baton_service::config::sources::{SECRET_KEYS, USUAL_NAMES};
use baton_service::reload::RELOADED;
use serde_json::Value;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
/// The files with the sections.
const SOURCES: [&str; 9] = [
    include_str!("../../src/config/sections.rs"),
    include_str!("../../src/config/agents.rs"),
    include_str!("../../src/config/auth.rs"),
    include_str!("../../src/config/llm.rs"),
    include_str!("../../src/config/upstreams.rs"),
    include_str!("../../src/config/tools.rs"),
    include_str!("../../src/config/mcp.rs"),
    include_str!("../../src/config/web_tools.rs"),
    include_str!("../../src/config/outbound.rs"),
];

const HEAD: &str = "\
# Configuration

Made from the code by `BATON_WRITE_DOCS=1 cargo test -p baton-service --test configuration documentation`; a
test compares the two. `deployments/baton.example.toml` has the same keys as a file to copy from.

Built-in defaults < the file < the environment. The file is the one of `--config` or `BATON_CONFIG`, else
`./baton.toml` if it exists. Every variable of a secret can be given as `<NAME>_FILE`, the path of a file that has
the value. An empty variable counts as unset. `baton config check` reports every mistake at once, `baton config print`
shows the values in force, `baton doctor` tries them out.

- Durations are written `250ms`, `30s`, `10m`, `24h`, `7days`; sizes `64KiB`, `10MiB`, `1GiB`.
- *Live*: a running role takes a changed value at SIGHUP, or within seconds after the file changes. All others need a
  restart; the role logs their names.
- A variable that only looks like a setting, such as `DB_HOST` or `DATABASE_URI`, is not read: `config check` and
  each role at its start warn, with the name to write.
- In a variable, lists and tables are JSON: `BATON_HTTP__TRUSTED_PROXIES='[\"10.0.0.0/8\"]'`. A `[[table]]` is set as a
  whole, by the variable of its list.
";

/// A struct of the configuration.
struct Table {
    /// As in TOML: `[http]` or `[[llm.prices]]`.
    name: String,
    about: String,
    keys: Vec<Key>,
}

struct Key {
    name: String,
    kind: String,
    default: String,
    about: String,
}

/// Returns the tables of a source file.
fn tables(source: &str) -> Vec<Table> {
    let mut tables: Vec<Table> = Vec::new();
    let mut doc = String::new();
    let mut is_open = false;
    for line in source.lines() {
        let code = line.trim();
        if let Some(text) = code.strip_prefix("///") {
            doc.push_str(text);
        } else if code.starts_with("pub struct ") {
            let found = doc
                .trim()
                .strip_prefix("`[")
                .and_then(|doc| doc.split_once("]`: "));
            is_open = found.is_some();
            if let Some((name, about)) = found {
                tables.push(Table {
                    name: format!("[{name}]"),
                    about: capitalized(about),
                    keys: Vec::new(),
                });
            }
            doc.clear();
        } else if is_open && let Some((name, kind)) = field(code) {
            let (about, default) = with_default(doc.trim());
            if let Some(table) = tables.last_mut() {
                table.keys.push(Key {
                    name: name.to_owned(),
                    kind: kind_of(kind),
                    default,
                    about,
                });
            }
            doc.clear();
        } else if code == "}" {
            is_open = false;
            doc.clear();
        } else if !is_open && !code.starts_with('#') {
            doc.clear();
        }
    }
    tables
}

/// Returns name and type of `pub name: Type,`.
fn field(code: &str) -> Option<(&str, &str)> {
    let (name, kind) = code.strip_prefix("pub ")?.split_once(": ")?;
    Some((name, kind.strip_suffix(',')?))
}

/// Splits a key's doc into its meaning and its default.
fn with_default(doc: &str) -> (String, String) {
    if let Some(about) = doc.strip_suffix("No default.") {
        return (about.trim().to_owned(), "required".to_owned());
    }
    if doc.contains("One of this and ") {
        return (doc.to_owned(), "none".to_owned());
    }
    let (about, default) = doc
        .rsplit_once("Default: ")
        .unwrap_or_else(|| panic!("a key's doc ends with its default: {doc}"));
    let default = default.trim_end_matches('.');
    (about.trim().to_owned(), default.to_owned())
}

/// Returns a type's name for people.
fn kind_of(rust: &str) -> String {
    let inner = |outer: &str| rust.strip_prefix(outer)?.strip_suffix('>');
    if let Some(inner) = inner("Option<").or_else(|| inner("Secret<")) {
        return kind_of(inner);
    }
    if let Some(inner) = inner("Vec<") {
        return format!("list of {}", kind_of(inner));
    }
    match rust {
        "bool" => "true or false",
        "u16" | "u32" | "u64" | "usize" => "number",
        "String" => "text",
        "Duration" => "duration",
        "ByteSize" => "size",
        "SocketAddr" => "address:port",
        "PathBuf" => "file",
        "ConnectionUrl" => "URL",
        "IpNet" => "network",
        "PerMillion" => "price",
        "Value" => "table or JSON text",
        _ if rust.starts_with("BTreeMap") => "table",
        _ if rust.ends_with("Config") || rust.ends_with("Tool") || rust == "ModelPrice" => "table",
        _ => "word",
    }
    .to_owned()
}

fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(chars).collect()
    })
}

/// Returns the variable of a key, with a mark if it is a secret.
fn variable(section: &str, key: &str) -> String {
    let usual = USUAL_NAMES
        .iter()
        .find(|(_, s, k)| (*s, *k) == (section, key));
    let name = usual.map_or_else(
        || format!("BATON_{}__{}", section.to_uppercase(), key.to_uppercase()),
        |(name, ..)| (*name).to_owned(),
    );
    if SECRET_KEYS.contains(&(section, key)) {
        format!("`{name}`, `{name}_FILE`")
    } else {
        format!("`{name}`")
    }
}

/// Compares the described default with the one of the code.
fn assert_default(key: &str, described: &str, actual: &Value) {
    let word = described.split([' ', ',']).next().unwrap_or_default();
    let word = word.trim_matches('`');
    let is_same = match actual {
        Value::String(actual) => {
            let seconds = |text: &str| humantime::parse_duration(text).ok();
            word == actual || (seconds(word).is_some() && seconds(word) == seconds(actual))
        }
        Value::Number(_) | Value::Bool(_) => word.parse().is_ok_and(|word: Value| word == *actual),
        Value::Array(list) => {
            let listed = word.parse().is_ok_and(|word: Value| word == *actual);
            listed || (list.is_empty() && word == "none")
        }
        // A default that depends on other settings is described by words.
        Value::Null => word.parse::<u64>().is_err() || described.contains(" or "),
        Value::Object(_) => false,
    };
    assert!(
        is_same,
        "{key}: the doc says {described:?}, the code {actual}"
    );
}

fn is_live(section: &str, key: &str) -> bool {
    RELOADED.contains(&(section, key)) || RELOADED.contains(&(section, "*"))
}

fn page() -> String {
    let all: Vec<Table> = SOURCES.iter().flat_map(|source| tables(source)).collect();
    let mut page = HEAD.to_owned();
    let Ok(Value::Object(sections)) = serde_json::to_value(Config::default()) else {
        panic!("a configuration is an object");
    };
    for (section, keys) in &sections {
        let own = format!("[{section}]");
        let below = format!("[[{section}.");
        let main = all.iter().find(|table| table.name == own);
        let main = main.unwrap_or_else(|| panic!("no struct is documented as `{own}`"));
        for (key, default) in keys.as_object().into_iter().flatten() {
            let described = main.keys.iter().find(|described| described.name == *key);
            let described = described.unwrap_or_else(|| panic!("{own} {key} is not described"));
            assert_default(&format!("{own} {key}"), &described.default, default);
        }
        let within = format!("[{section}.");
        let is_part = |table: &&Table| {
            [&below, &within]
                .iter()
                .any(|it| table.name.starts_with(*it))
        };
        let parts = all.iter().filter(is_part);
        for table in std::iter::once(main).chain(parts) {
            let _ = write!(page, "\n## `{}`\n\n{}\n\n", table.name, table.about);
            let is_section = table.name == own;
            page.push_str(if is_section {
                "| key | type | default | meaning | variable |\n|--|--|--|--|--|\n"
            } else {
                "| key | type | default | meaning |\n|--|--|--|--|\n"
            });
            for key in &table.keys {
                let live = if is_section && is_live(section, &key.name) {
                    " *Live.*"
                } else {
                    ""
                };
                let _ = write!(
                    page,
                    "| `{}` | {} | {} | {}{live} |",
                    key.name, key.kind, key.default, key.about,
                );
                if is_section {
                    let _ = write!(page, " {} |", variable(section, &key.name));
                }
                page.push('\n');
            }
        }
    }
    page
}

#[test]
fn the_page_is_made_from_the_code() {
    let page = page();
    if std::env::var_os("BATON_WRITE_DOCS").is_some() {
        std::fs::write(PAGE, &page).unwrap();
    }
    let found = std::fs::read_to_string(PAGE).unwrap_or_default();
    assert!(
        found == page,
        "docs/configuration.md is not what the code declares: run this test with BATON_WRITE_DOCS=1"
    );
}
