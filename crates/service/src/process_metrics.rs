//! Memory, CPU time, open files and tasks of this process; the first three under the usual names
//! of Prometheus clients.

use baton_metrics::Metric;

use crate::metrics::{CPU, OPEN_FILES, QUEUED_TASKS, RESIDENT_MEMORY, START_TIME, TASKS, THREADS};

/// `USER_HZ`, the unit of times in proc(5) on every architecture we build for.
const TICKS_PER_SECOND: f64 = 100.0;

/// Reads `/proc` and the runtime, and omits unreadable values.
pub(crate) fn read() -> Vec<(&'static Metric, f64)> {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let (status, stat) = (read("/proc/self/status"), read("/proc/self/stat"));
    let runtime = tokio::runtime::Handle::try_current().ok();
    let runtime = runtime.map(|runtime| runtime.metrics());
    [
        (
            &RESIDENT_MEMORY,
            field(&status, "VmRSS:").map(|kib| kib * 1024.0),
        ),
        (&THREADS, field(&status, "Threads:")),
        (&CPU, cpu(&stat)),
        (&OPEN_FILES, open_files()),
        (&START_TIME, start_time(&stat, &read("/proc/stat"))),
        (
            &TASKS,
            runtime.as_ref().and_then(|it| count(it.num_alive_tasks())),
        ),
        (
            &QUEUED_TASKS,
            runtime
                .as_ref()
                .and_then(|it| count(it.global_queue_depth())),
        ),
    ]
    .into_iter()
    .filter_map(|(metric, value)| Some((metric, value?)))
    .collect()
}

fn count(number: usize) -> Option<f64> {
    u32::try_from(number).ok().map(f64::from)
}

fn field(status: &str, name: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// `utime` and `stime` of proc(5).
fn cpu(stat: &str) -> Option<f64> {
    // The second field is the program's name in brackets, which may contain blanks.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let user: f64 = fields.nth(11)?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

fn open_files() -> Option<f64> {
    let count = std::fs::read_dir("/proc/self/fd").ok()?.count();
    // One of them is the directory being read.
    self::count(count.saturating_sub(1))
}

/// `starttime` of proc(5), which counts from the start of the machine.
fn start_time(stat: &str, machine: &str) -> Option<f64> {
    let after: f64 = stat
        .rsplit_once(')')?
        .1
        .split_whitespace()
        .nth(19)?
        .parse()
        .ok()?;
    Some(field(machine, "btime ")? + after / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_behind_a_name_with_blanks_and_brackets() {
        let stat = "42 (a ) b) S 1 42 42 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 4 0 100 1 1";
        assert_eq!(cpu(stat), Some(2.0));
    }

    #[test]
    fn the_start_is_counted_from_the_start_of_the_machine() {
        let stat = "42 (a) S 1 42 42 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 4 0 250 1 1";
        let machine = "cpu 1 2 3\nbtime 1000\nprocesses 7\n";
        assert_eq!(start_time(stat, machine), Some(1002.5));
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn linux_has_all_of_them() {
        let read = read();
        let names: Vec<_> = read.iter().map(|(metric, _)| metric.name).collect();
        let declared: Vec<_> = crate::metrics::PROCESS.iter().map(|it| it.name).collect();
        assert_eq!(names, declared);
        let value = |name| {
            read.iter()
                .find(|(metric, _)| metric.name == name)
                .unwrap()
                .1
        };
        assert!(value("process_resident_memory_bytes") > 100_000.0);
        assert!(value("process_start_time_seconds") > 1_600_000_000.0);
    }
}
