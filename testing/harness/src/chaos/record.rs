//! Writes the history as it happens, a line of JSON each.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use crate::checker::{Record, What};

/// The writer of the history.
#[derive(Debug)]
pub struct Recorder(Mutex<BufWriter<File>>);

impl Recorder {
    /// Writes to a new file.
    pub fn create(path: &Path) -> std::io::Result<Self> {
        Ok(Self(Mutex::new(BufWriter::new(File::create(path)?))))
    }

    /// Records that this happened now.
    ///
    /// # Panics
    ///
    /// If the file cannot be written: a history with a hole proves nothing.
    pub fn note(&self, what: What) {
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Under the lock, so that the times are in order.
        let at = What::now();
        let line = serde_json::to_string(&Record { at, what }).expect("records are plain JSON");
        writeln!(file, "{line}").expect("the history can be written");
    }

    /// Writes all buffered records to the file.
    pub fn flush(&self) -> std::io::Result<()> {
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        file.flush()
    }
}
