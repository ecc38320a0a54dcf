//! Metrics of the process from the operating system.

use std::{
    fs,
    time::{SystemTime, UNIX_EPOCH},
};

use crate::{
    catalog::process::{
        BUILD_INFO, CPU_SECONDS, MAX_FDS, OPEN_FDS, RESIDENT_MEMORY, SECTION, START_TIME, TASKS,
    },
    metrics,
};

/// Clock ticks per second in /proc, the same on every Linux.
const TICKS: f64 = 100.0;

/// Shows the metrics of the process: build, memory, descriptors and tasks. Must be called on the
/// runtime that is measured. Without /proc, its values stay 0.
pub fn expose_process(version: &str, commit: Option<&str>) {
    metrics::expose(&SECTION);
    BUILD_INFO.with_label_values(&[version, commit.unwrap_or("unknown")]).set(1);
    START_TIME.set(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64());
    if let Some(most) = max_fds(&fs::read_to_string("/proc/self/limits").unwrap_or_default()) {
        MAX_FDS.set(most);
    }
    let runtime = tokio::runtime::Handle::current().metrics();
    metrics::before_scrape(move || {
        TASKS.set(i64::try_from(runtime.num_alive_tasks()).unwrap_or(i64::MAX));
        sample();
        true
    });
}

fn sample() {
    let text = |name: &str| fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
    if let Some(bytes) = resident(&text("status")) {
        RESIDENT_MEMORY.set(bytes);
    }
    if let Some(seconds) = cpu_seconds(&text("stat")) {
        CPU_SECONDS.inc_by((seconds - CPU_SECONDS.get()).max(0.0));
    }
    if let Ok(entries) = fs::read_dir("/proc/self/fd") {
        // The listing itself has one open.
        OPEN_FDS.set(i64::try_from(entries.count()).unwrap_or(i64::MAX).saturating_sub(1));
    }
}

/// `VmRSS:     1234 kB`.
fn resident(status: &str) -> Option<i64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<i64>().ok().map(|kib| kib * 1024)
}

/// The 14th and 15th field. The second, the program's name, is in parentheses and may contain
/// anything.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut ticks = rest.split_whitespace().skip(11).map(str::parse::<f64>);
    Some((ticks.next()?.ok()? + ticks.next()?.ok()?) / TICKS)
}

/// `Max open files            1024                 524288               files`: the first number is
/// in force.
fn max_fds(limits: &str) -> Option<i64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_linux_tells_is_read() {
        assert_eq!(resident("Name:\tx\nVmRSS:\t    2048 kB\n"), Some(2 << 20));
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 8 0 100 1000 10";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!(
            max_fds(
                "Limit  Soft Limit\nMax open files            1024                 \
                    524288               files\n"
            ),
            Some(1024)
        );
        assert_eq!((resident(""), cpu_seconds(""), max_fds("")), (None, None, None));
    }
}
