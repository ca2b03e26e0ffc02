//! The checks of `baton doctor` and their results.

use std::fmt::Write as _;

use serde::Serialize;

use crate::visible::visible;

/// The result of one check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    /// In order.
    Ok,
    /// A role works, but not as it should.
    Warning,
    /// A role does not work.
    Failed,
    /// Not checked: something before it failed, or is not configured.
    Skipped,
}

/// One check.
#[derive(Debug, Serialize)]
pub(super) struct Check {
    /// Its name: part and subject, such as `postgres.version`.
    name: &'static str,
    verdict: Verdict,
    /// The finding.
    detail: String,
    /// The way to mend it.
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

/// All checks, in their order.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    checks: Vec<Check>,
}

impl Report {
    pub(super) fn ok(&mut self, name: &'static str, detail: impl Into<String>) {
        self.add(name, Verdict::Ok, detail.into(), None);
    }

    pub(super) fn skipped(&mut self, name: &'static str, detail: impl Into<String>) {
        self.add(name, Verdict::Skipped, detail.into(), None);
    }

    pub(super) fn warning(
        &mut self,
        name: &'static str,
        detail: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.add(name, Verdict::Warning, detail.into(), Some(remedy.into()));
    }

    pub(super) fn failed(
        &mut self,
        name: &'static str,
        detail: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.add(name, Verdict::Failed, detail.into(), Some(remedy.into()));
    }

    fn add(
        &mut self,
        name: &'static str,
        verdict: Verdict,
        detail: String,
        remedy: Option<String>,
    ) {
        self.checks.push(Check {
            name,
            verdict,
            detail,
            remedy,
        });
    }

    pub(super) fn has_failed(&self) -> bool {
        self.count(Verdict::Failed) > 0
    }

    fn count(&self, verdict: Verdict) -> usize {
        let of_it = |check: &&Check| check.verdict == verdict;
        self.checks.iter().filter(of_it).count()
    }

    /// Returns a line for each check, a line with the remedy below some, and a last line with counts.
    pub(super) fn lines(&self) -> String {
        // Writing to a string cannot fail.
        let mut lines = String::new();
        for check in &self.checks {
            let word = match check.verdict {
                Verdict::Ok => "ok",
                Verdict::Warning => "warning",
                Verdict::Failed => "FAILED",
                Verdict::Skipped => "skipped",
            };
            let _ = writeln!(
                lines,
                "{word:<8} {:<20} {}",
                check.name,
                visible(&check.detail)
            );
            if let Some(remedy) = &check.remedy {
                let _ = writeln!(lines, "{:<29} → {}", "", visible(remedy));
            }
        }
        let _ = write!(
            lines,
            "{} checks: {} failed, {} warnings, {} skipped",
            self.checks.len(),
            self.count(Verdict::Failed),
            self.count(Verdict::Warning),
            self.count(Verdict::Skipped),
        );
        lines
    }
}
