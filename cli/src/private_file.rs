//! Files that hold a secret.

use std::io::Write as _;
use std::path::Path;

/// Writes a file that only its owner may read, and its folders. Replaces an existing file, because
/// others may be able to read that one.
pub(crate) fn write(path: &Path, text: &str) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    create(path, text)
}

/// Writes a file that only its owner may read. Fails if the file exists.
pub(crate) fn create(path: &Path, text: &str) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    writeln!(options.open(path)?, "{}", text.trim_end())
}
