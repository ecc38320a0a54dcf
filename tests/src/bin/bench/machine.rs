//! Measures the machine without Outrider, for comparison with every figure.

use std::{
    fs::{self, File},
    io::{Seek, SeekFrom, Write},
    process::Command,
    thread::available_parallelism,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use bytes::Bytes;
use http::Method;
use outrider_tests::{Receiver, client::Rest};

use crate::{load::call_for, report::rate};

/// The speed of the bare machine.
pub struct Machine {
    /// POSTs of 1 KiB per second from 64 callers directly to the receiver.
    pub posts: f64,
    /// The median time to write 8 KiB with fdatasync.
    pub sync: Duration,
}

impl Machine {
    pub async fn measure() -> Result<Self> {
        let receiver = Receiver::start_counting().await?;
        let rest = Rest::new(&receiver.url(""), None);
        let body = Bytes::from(vec![b'x'; 1_024]);
        let posted = call_for(64, Duration::from_secs(3), async || {
            let reply = rest.send(Method::POST, "/machine", body.clone()).await?;
            ensure!(reply.status == 200, "{}", reply.status);
            Ok(1)
        });
        let posted = posted.await?;
        Ok(Self { posts: rate(posted.accepted, posted.took), sync: sync()? })
    }

    pub fn print(&self) {
        let version = Command::new("git").args(["rev-parse", "--short", "HEAD"]).output().ok();
        let commit =
            version.and_then(|output| String::from_utf8(output.stdout).ok()).unwrap_or_default();
        let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cpu = cpu
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
            .map_or("unknown", |(_, name)| name.trim());
        println!(
            "commit {}, {} cores ({cpu}), bare machine: {:.0} POSTs/s, fdatasync {} µs",
            commit.trim(),
            available_parallelism().map_or(0, usize::from),
            self.posts,
            self.sync.as_micros()
        );
    }
}

fn sync() -> Result<Duration> {
    let path = std::env::temp_dir().join(format!("outrider-bench-{}", std::process::id()));
    let mut file = File::create(&path)?;
    let mut times = Vec::new();
    for _ in 0..300 {
        let begin = Instant::now();
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&[7; 8_192])?;
        file.sync_data()?;
        times.push(begin.elapsed());
    }
    fs::remove_file(path)?;
    times.sort_unstable();
    Ok(times[times.len() / 2])
}
