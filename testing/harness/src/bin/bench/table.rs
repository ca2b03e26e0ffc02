//! The table of figures.

use serde_json::{Map, Value, json};

/// A quantity over the three ways to the upstream.
pub(crate) struct Figures {
    pub(crate) direct: f64,
    /// None if the bare pipe has no such quantity.
    pub(crate) bare: Option<f64>,
    pub(crate) baton: f64,
}

impl Figures {
    /// Returns how many times as much Baton adds as the bare pipe does.
    fn ratio(&self) -> Option<f64> {
        let floor = self.bare? - self.direct;
        (floor > 0.0).then(|| (self.baton - self.direct) / floor)
    }
}

/// A table, formatted both for the terminal and for Markdown.
#[derive(Default)]
pub(crate) struct Table {
    json: Map<String, Value>,
}

impl Table {
    #[expect(clippy::print_stdout, reason = "the table is the answer")]
    pub(crate) fn begin() -> Self {
        println!("| what | direct | bare pipe | Baton | Baton adds | × bare pipe | unit |");
        println!("|--|--|--|--|--|--|--|");
        Self::default()
    }

    #[expect(clippy::print_stdout, reason = "the table is the answer")]
    pub(crate) fn row(&mut self, what: &str, figures: &Figures, unit: &str) {
        let Figures {
            direct,
            bare,
            baton,
        } = *figures;
        let shown =
            |figure: Option<f64>| figure.map_or("–".to_owned(), |one| format!("{one:.2}"));
        println!(
            "| {what} | {} | {} | {baton:.2} | {:.2} | {} | {unit} |",
            shown((direct > 0.0).then_some(direct)),
            shown(bare),
            baton - direct,
            shown(figures.ratio()),
        );
        self.json.insert(
            what.to_owned(),
            json!({"direct": direct, "bare": bare, "baton": baton, "unit": unit}),
        );
    }

    /// Adds a quantity that only Baton has.
    pub(crate) fn alone(&mut self, what: &str, baton: f64, unit: &str) {
        let figures = Figures {
            direct: 0.0,
            bare: None,
            baton,
        };
        self.row(what, &figures, unit);
    }

    /// Returns the figures as JSON, by row.
    pub(crate) fn into_json(self) -> Value {
        Value::Object(self.json)
    }
}
