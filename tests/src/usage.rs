//! The resource usage of processes, from /proc.

use std::{collections::HashMap, fs, time::Duration};

/// CPU time and memory of a process and its descendants.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// CPU time in user and kernel mode, including that of children that have ended.
    pub cpu: Duration,
    /// Memory in bytes, as [`memory`] returns it.
    pub memory: u64,
}

/// Ticks per second in /proc, which are 100 on every architecture with Linux's defaults.
const TICKS: u32 = 100;

struct Row {
    parent: u32,
    ticks: u64,
}

/// Returns the usage of these processes and all of their descendants.
#[must_use]
pub fn of(roots: &[u32]) -> Usage {
    let rows = table();
    let belongs = |mut pid: u32| loop {
        if roots.contains(&pid) {
            return true;
        }
        match rows.get(&pid) {
            Some(row) if row.parent != 0 => pid = row.parent,
            _ => return false,
        }
    };
    sum(rows.iter().filter(|(pid, _)| belongs(**pid)))
}

/// Returns the children of this process.
#[must_use]
pub fn children(parent: u32) -> Vec<u32> {
    table().into_iter().filter(|(_, row)| row.parent == parent).map(|(pid, _)| pid).collect()
}

/// Returns the usage of one process.
#[must_use]
pub fn of_one(pid: u32) -> Usage {
    let row = fs::read_to_string(format!("/proc/{pid}/stat")).ok().and_then(|stat| row(&stat));
    sum(row.iter().map(|row| (&pid, row)))
}

fn sum<'a>(rows: impl Iterator<Item = (&'a u32, &'a Row)>) -> Usage {
    let (ticks, memory) = rows.fold((0, 0), |(ticks, memory), (pid, row)| {
        (ticks + row.ticks, memory + self::memory(*pid))
    });
    Usage { cpu: Duration::from_millis(ticks * 1_000 / u64::from(TICKS)), memory }
}

/// Returns the memory of one process in bytes, with its part of shared pages (PSS). If that cannot
/// be read, returns its resident pages (RSS), and 0 if there is no such process.
#[must_use]
pub fn memory(pid: u32) -> u64 {
    let told = |file: &str, key: &str| {
        kibibytes(&fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?, key)
    };
    told("smaps_rollup", "Pss:").or_else(|| told("status", "VmRSS:")).unwrap_or(0) * 1_024
}

/// Returns the resident pages (RSS) of one process in bytes, or 0 if there is no such process.
#[must_use]
pub fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    kibibytes(&status, "VmRSS:").unwrap_or(0) * 1_024
}

/// Returns the most resident pages (RSS) that a process had since [`forget_peak`], in bytes, or 0
/// if there is no such process.
#[must_use]
pub fn peak(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    kibibytes(&status, "VmHWM:").unwrap_or(0) * 1_024
}

/// Resets [`peak`] to the current value.
pub fn forget_peak(pid: u32) -> std::io::Result<()> {
    fs::write(format!("/proc/{pid}/clear_refs"), "5")
}

fn kibibytes(text: &str, key: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(key)?.trim().strip_suffix(" kB")?.trim().parse().ok())
}

fn table() -> HashMap<u32, Row> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            row(&fs::read_to_string(entry.path().join("stat")).ok()?).map(|row| (pid, row))
        })
        .collect()
}

/// Reads the fields after the command's name, which may contain spaces and parentheses.
fn row(stat: &str) -> Option<Row> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    // utime, stime, cutime and cstime: the time of the process and of children that were waited
    // for.
    let ticks = (11..=14).map(number).sum::<Option<u64>>()?;
    Some(Row { parent: u32::try_from(number(1)?).ok()?, ticks })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_used_something() {
        let me = std::process::id();
        let begin = of(&[me]);
        let mut sum = 0u64;
        while of(&[me]).cpu < begin.cpu + Duration::from_millis(20) {
            sum = (0..100_000u64).fold(sum, u64::wrapping_add);
        }
        assert!(begin.memory > 100_000);
    }

    #[test]
    fn memory_is_read_from_either_file_and_of_no_process_is_nothing() {
        assert_eq!(
            kibibytes("Rss:  9 kB\nPss:                1234 kB\nPss_Anon: 7 kB\n", "Pss:"),
            Some(1_234)
        );
        assert_eq!(kibibytes("VmHWM:\t  9 kB\nVmRSS:\t    5678 kB\n", "VmRSS:"), Some(5_678));
        assert_eq!(kibibytes("Name:\tkthreadd\n", "VmRSS:"), None);
        assert_eq!((memory(u32::MAX), resident(u32::MAX)), (0, 0));
        assert!(resident(std::process::id()) > 100_000);
    }
}
