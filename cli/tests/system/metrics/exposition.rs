//! A reader of Prometheus's text format that accepts only the form which the roles write.

use std::collections::BTreeMap;

/// The metrics that one role exports.
#[derive(Debug, Default)]
pub(super) struct Exposition {
    pub(super) families: BTreeMap<String, Family>,
}

/// A metric with its series.
#[derive(Debug, Default)]
pub(super) struct Family {
    pub(super) kind: String,
    pub(super) help: String,
    /// The labels of each series, without a histogram's `le`.
    pub(super) series: Vec<BTreeMap<String, String>>,
}

impl Exposition {
    /// # Panics
    ///
    /// If a line is not of the format, or a sample has no type.
    pub(super) fn parse(text: &str) -> Self {
        let mut all = Self::default();
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap();
                help.clone_into(&mut all.family(name).help);
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                kind.clone_into(&mut all.family(name).kind);
            } else {
                let (series, value) = line.rsplit_once(' ').unwrap();
                assert!(value.parse::<f64>().is_ok(), "no number: {line}");
                let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
                let mut labels = labels_of(labels);
                labels.remove("le");
                let family = all.of_sample(name);
                if !family.series.contains(&labels) {
                    family.series.push(labels);
                }
            }
        }
        all
    }

    fn family(&mut self, name: &str) -> &mut Family {
        self.families.entry(name.to_owned()).or_default()
    }

    fn of_sample(&mut self, name: &str) -> &mut Family {
        let histogram = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|end| name.strip_suffix(end))
            .filter(|base| {
                let family = self.families.get(*base);
                family.is_some_and(|family| family.kind == "histogram")
            });
        let name = histogram.unwrap_or(name);
        let family = self.families.get_mut(name);
        family.unwrap_or_else(|| panic!("{name} has no type"))
    }
}

/// Reads labels from `a="b",c="d"}`.
fn labels_of(text: &str) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    let mut rest = text.trim_start_matches(',');
    while !rest.starts_with('}') {
        let (name, after) = rest.split_once("=\"").unwrap();
        let mut value = String::new();
        let mut characters = after.char_indices();
        let end = loop {
            match characters.next().unwrap() {
                (at, '"') => break at + 1,
                (_, '\\') => value.push(characters.next().unwrap().1),
                (_, character) => value.push(character),
            }
        };
        labels.insert(name.to_owned(), value);
        rest = after[end..].trim_start_matches(',');
    }
    labels
}

#[test]
fn values_with_every_special_character_are_read() {
    let text = "# HELP a b c\n# TYPE a counter\na{route=\"/v1/{x},\\\"\",ok=\"1\"} 7\n";
    let parsed = Exposition::parse(text);
    let family = &parsed.families["a"];
    assert_eq!((&*family.kind, &*family.help), ("counter", "b c"));
    assert_eq!(family.series[0]["route"], "/v1/{x},\"");
    assert_eq!(family.series[0]["ok"], "1");
}
