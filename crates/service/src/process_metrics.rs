//! Memory, CPU time and open files of this process, under the names that every Prometheus client uses.

/// One sample.
#[derive(Debug)]
pub(crate) struct ProcessMetric {
    pub(crate) name: &'static str,
    pub(crate) help: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) value: f64,
}

/// Reads `/proc/self`; what cannot be read is left out, so other systems have none of them.
pub(crate) fn read() -> Vec<ProcessMetric> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let sample = |name, help, kind, value: Option<f64>| {
        value.map(|value| ProcessMetric {
            name,
            help,
            kind,
            value,
        })
    };
    [
        sample(
            "process_resident_memory_bytes",
            "Resident memory",
            "gauge",
            field(&status, "VmRSS:").map(|kib| kib * 1024.0),
        ),
        sample(
            "process_threads",
            "Threads",
            "gauge",
            field(&status, "Threads:"),
        ),
        sample(
            "process_cpu_seconds_total",
            "CPU time, user and system",
            "counter",
            cpu(&stat),
        ),
        sample(
            "process_open_fds",
            "Open files and sockets",
            "gauge",
            open_files(),
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn field(status: &str, name: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// `utime` and `stime` of proc(5). Their unit, `USER_HZ`, is 100 on every architecture we build for.
fn cpu(stat: &str) -> Option<f64> {
    // The second field is the program's name in brackets, which may contain blanks.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let user: f64 = fields.nth(11)?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / 100.0)
}

fn open_files() -> Option<f64> {
    let count = std::fs::read_dir("/proc/self/fd").ok()?.count();
    // One of them is the directory being read.
    u32::try_from(count.saturating_sub(1)).ok().map(f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_behind_a_name_with_blanks_and_brackets() {
        let stat = "42 (a ) b) S 1 42 42 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 4 0 100 1 1";
        assert_eq!(cpu(stat), Some(2.0));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn linux_has_all_of_them() {
        let metrics = read();
        assert_eq!(metrics.len(), 4, "{metrics:?}");
        let memory = metrics
            .iter()
            .find(|m| m.name == "process_resident_memory_bytes");
        assert!(memory.is_some_and(|m| m.value > 100_000.0));
    }
}
