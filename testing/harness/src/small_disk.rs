//! A file system of a few megabytes for one test to fill.
//!
//! It is mounted in private: the test starts again in a mount namespace of its own, and the file
//! system vanishes with this namespace, however the test ends. Root may do that, and every user may
//! if user namespaces are allowed. Otherwise the test reports that it did not run.

use std::fs::{File, Permissions};
use std::future::Future;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::unistd::{getegid, geteuid};
use tempfile::TempDir;

/// The environment variable with the mount point, for a test that has started again.
const MOUNTED_AT: &str = "BATON_TEST_SMALL_DISK";
/// Mounts a file system of `$1` megabytes at `$2`, and executes the remaining arguments.
const MOUNT: &str =
    "mount -t tmpfs -o \"size=${1}m,mode=0755\" tmpfs \"$2\" && shift 2 && exec \"$@\"";

/// A file system that a test may fill.
#[derive(Debug)]
pub struct SmallDisk {
    path: PathBuf,
    /// The folder of the servers' logs, which stay readable when the disk is full.
    logs: TempDir,
}

impl SmallDisk {
    /// Runs a test on a file system of this size. `name` is that of the `#[test]` function that
    /// calls this, with its modules.
    ///
    /// # Panics
    ///
    /// If the test does.
    pub fn run<T: Future<Output = ()>>(name: &str, megabytes: u32, test: impl FnOnce(Self) -> T) {
        if let Some(mounted_at) = std::env::var_os(MOUNTED_AT) {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            return runtime.block_on(test(Self {
                path: mounted_at.into(),
                logs: tempfile::tempdir().expect("a folder for logs"),
            }));
        }
        let folder = tempfile::tempdir().expect("a folder to mount at");
        // The servers may run as another user.
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755))
            .expect("a folder that everybody may enter");
        let refused = in_namespace(megabytes, folder.path(), Path::new("true"))
            .output()
            .map_or_else(
                |error| Some(error.to_string()),
                |output| {
                    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                    (!output.status.success()).then_some(said)
                },
            );
        if let Some(why) = refused {
            // Not by `eprintln!`, because a runner hides that when a test passes.
            let _nobody_reads_it = writeln!(
                std::io::stderr(),
                "\n*** NOT RUN: {name}: this account may not mount a file system: {why}\n"
            );
            return;
        }
        let this = std::env::current_exe().expect("the path of this program");
        let status = in_namespace(megabytes, folder.path(), &this)
            .args(["--exact", name, "--nocapture"])
            .env(MOUNTED_AT, folder.path())
            .status()
            .expect("the test begins anew");
        assert!(status.success(), "{name} on a small disk: {status}");
    }

    /// Makes a folder on it for a server's data; the server's log is elsewhere.
    pub fn folder_for(&self, server: &str) -> std::io::Result<PathBuf> {
        let folder = self.path.join(server);
        std::fs::create_dir(&folder)?;
        let log = self.logs.path().join(server);
        std::os::unix::fs::symlink(log, folder.join("server.log"))?;
        Ok(folder)
    }

    /// Writes until no further byte fits.
    pub fn fill(&self) -> std::io::Result<()> {
        let mut ballast = File::create(self.ballast())?;
        // The last page, too.
        for piece in [1 << 20, 1 << 12, 1] {
            let zeros = vec![0; piece];
            loop {
                match ballast.write_all(&zeros) {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// Removes the files of [`SmallDisk::fill`].
    pub fn make_room(&self) -> std::io::Result<()> {
        std::fs::remove_file(self.ballast())
    }

    fn ballast(&self) -> PathBuf {
        self.path.join("ballast")
    }
}

/// Returns the command that runs this program on a small file system, as the current user.
fn in_namespace(megabytes: u32, mount_at: &Path, program: &Path) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private"]);
    if !geteuid().is_root() {
        // In a user namespace, only its root may mount.
        command.arg("--map-root-user");
    }
    command
        .args(["sh", "-c", MOUNT, "sh", &megabytes.to_string()])
        .arg(mount_at)
        .stdin(Stdio::null());
    if !geteuid().is_root() {
        // PostgreSQL refuses root, so the program returns to the current user in a namespace
        // within.
        command
            .args(["unshare", "--user"])
            .arg(format!("--map-user={}", geteuid()))
            .arg(format!("--map-group={}", getegid()));
    }
    command.arg(program);
    command
}
