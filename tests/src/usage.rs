//! What a process has used, from /proc.

use std::{collections::HashMap, fs, time::Duration};

/// CPU time and memory of a process and its descendants.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// CPU time in user and kernel mode, of children that ended too.
    pub cpu: Duration,
    /// Resident memory in bytes, summed; shared pages count once per process.
    pub resident: u64,
}

/// Ticks per second in /proc: 100 on every architecture that Linux runs on with its defaults.
const TICKS: u32 = 100;
const PAGE: u64 = 4_096;

struct Row {
    parent: u32,
    ticks: u64,
    pages: u64,
}

/// The usage of these processes and of all that descend from them.
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
    let mine: Vec<&Row> = rows.iter().filter(|(pid, _)| belongs(**pid)).map(|(_, row)| row).collect();
    sum(&mine)
}

/// The usage of one process alone.
#[must_use]
pub fn of_one(pid: u32) -> Usage {
    let row = fs::read_to_string(format!("/proc/{pid}/stat")).ok().and_then(|stat| row(&stat));
    row.map(|row| sum(&[&row])).unwrap_or_default()
}

fn sum(rows: &[&Row]) -> Usage {
    let ticks = rows.iter().map(|row| row.ticks).sum::<u64>();
    Usage {
        cpu: Duration::from_millis(ticks * 1_000 / u64::from(TICKS)),
        resident: rows.iter().map(|row| row.pages * PAGE).sum(),
    }
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

/// The fields behind the command's name, which may hold spaces and parentheses.
fn row(stat: &str) -> Option<Row> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    // utime, stime, cutime and cstime: the time of living processes and of children that were waited for.
    let ticks = (11..=14).map(number).sum::<Option<u64>>()?;
    Some(Row { parent: u32::try_from(number(1)?).ok()?, ticks, pages: number(21)? })
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
        assert!(begin.resident > 100_000);
    }
}
