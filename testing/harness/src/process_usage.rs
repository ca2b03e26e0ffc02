//! Measures the use of processor and memory of a set of processes, from Linux's `/proc`.

use std::collections::BTreeMap;
use std::fs;

/// The use of a process and all its descendants, under one name.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Usage {
    /// Processor time, user and system, in seconds, of living processes and reaped children.
    pub cpu_seconds: f64,
    /// Proportional set size in bytes: shared pages are divided among those that share them.
    pub memory: u64,
    /// The number of processes.
    pub processes: usize,
}

/// Returns the usage of `root` and its descendants, by process name. `root` itself is named
/// `root_name`.
pub fn by_name(root: u32, root_name: &str) -> BTreeMap<String, Usage> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for pid in all_pids() {
        if let Some(stat) = Stat::read(pid) {
            children.entry(stat.parent).or_default().push(pid);
        }
    }
    let mut sum: BTreeMap<String, Usage> = BTreeMap::new();
    let mut open = vec![root];
    while let Some(pid) = open.pop() {
        open.extend(children.get(&pid).into_iter().flatten());
        let Some(stat) = Stat::read(pid) else {
            continue;
        };
        let name = if pid == root {
            root_name.to_owned()
        } else {
            role(pid, &stat.name)
        };
        let usage = sum.entry(name).or_default();
        usage.cpu_seconds += stat.cpu_seconds;
        usage.memory += memory(pid);
        usage.processes += 1;
    }
    sum
}

/// Returns a process and its children.
pub fn family(root: u32) -> Vec<u32> {
    let child = |pid: &u32| Stat::read(*pid).is_some_and(|stat| stat.parent == root);
    std::iter::once(root)
        .chain(all_pids().filter(child))
        .collect()
}

/// Returns `baton worker` rather than `baton`, so that the roles are separate.
fn role(pid: u32, name: &str) -> String {
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut words = command.split(|byte| *byte == 0).skip(1);
    match (name, words.next().map(String::from_utf8_lossy)) {
        ("baton", Some(role)) => format!("baton {role}"),
        _ => name.to_owned(),
    }
}

fn all_pids() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

fn memory(pid: u32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let kilobytes = rollup.lines().find_map(|line| {
        line.strip_prefix("Pss:")?
            .split_whitespace()
            .next()?
            .parse::<u64>()
            .ok()
    });
    kilobytes.unwrap_or(0) * 1_024
}

/// Returns the resident memory of a process in bytes; cheaper to read than [`by_name`].
pub fn resident(pid: u32) -> Option<u64> {
    const PAGE: u64 = 4_096;

    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    Some(statm.split(' ').nth(1)?.parse::<u64>().ok()? * PAGE)
}

/// Counts a process's threads with this name.
pub fn threads(pid: u32, name: &str) -> usize {
    fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("comm")).ok())
        .filter(|found| found.trim_end() == name)
        .count()
}

struct Stat {
    name: String,
    parent: u32,
    cpu_seconds: f64,
}

impl Stat {
    fn read(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name is in parentheses and may itself contain parentheses.
        let (before, after) = stat.rsplit_once(')')?;
        let name = before.split_once('(')?.1.to_owned();
        let fields: Vec<&str> = after.split_whitespace().collect();
        // After the name: state, parent, …; utime, stime, cutime and cstime are fields 14 to 17 of
        // the line, counted in ticks of a hundredth of a second.
        let ticks: u32 = fields
            .get(11..15)?
            .iter()
            .filter_map(|field| field.parse::<u32>().ok())
            .sum();
        Some(Self {
            name,
            parent: fields.get(1)?.parse().ok()?,
            cpu_seconds: f64::from(ticks) / 100.0,
        })
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_process_sees_itself() {
        let usage = by_name(std::process::id(), "me");
        assert!(usage["me"].memory > 100_000);
        assert_eq!(usage["me"].processes, 1);
        assert!(resident(std::process::id()).unwrap() > 100_000);
    }
}
