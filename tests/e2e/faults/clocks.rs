//! The clock of a process's host steps while the process runs. Due times follow the database's
//! clock; leases and timeouts follow the monotonic clock.

use std::{fs, path::Path, time::Duration};

use anyhow::{Result, ensure};

use super::{
    cases,
    trial::{Trial, mesh, single, sqlite},
};

cases! {
    sqlite_clock_steps: sqlite(), async |trial| steps(trial, "all").await;
    postgres_clock_steps: single(), async |trial| steps(trial, "all").await;
    mesh_clock_of_worker_steps: mesh(), async |trial| steps(trial, "worker").await;
    mesh_clock_of_dispatch_steps: mesh(), async |trial| steps(trial, "dispatch").await;
}

/// Starts a role under libfaketime, and steps its clock an hour ahead of the true time, then an
/// hour behind it. The restart is orderly, so nothing may be sent twice.
async fn steps(trial: &mut Trial<'_>, role: &str) -> Result<()> {
    let Some(library) = library()? else { return Ok(()) };
    let file = trial.world.outrider.directory().join("time");
    fs::write(&file, "+0\n")?;
    let variables = [
        ("LD_PRELOAD", library.to_owned()),
        ("FAKETIME_TIMESTAMP_FILE", file.display().to_string()),
        ("FAKETIME_NO_CACHE", "1".to_owned()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
    ];
    trial.harm("under libfaketime", |world| world.outrider.set_environment(role, &variables))?;
    trial.renew(role)?;
    let process = trial.world.outrider.process_id(role)?;
    let maps = fs::read_to_string(format!("/proc/{process}/maps"))?;
    ensure!(maps.contains("libfaketime"), "{role} runs without libfaketime");
    for step in ["+3600\n", "-3600\n", "+0\n"] {
        // Replace the file as a whole, so that it is never read half written.
        let next = file.with_extension("next");
        fs::write(&next, step)?;
        fs::rename(&next, &file)?;
        trial.note(format!("the clock of {role} is at {}s", step.trim()));
        trial.accepts(40).await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

/// Returns its place in Debian's package. If it is missing, says so and returns `None`, or fails if
/// tests may not be skipped.
fn library() -> Result<Option<&'static str>> {
    const PLACES: [&str; 2] = [
        "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
        "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    ];
    let found = PLACES.into_iter().find(|path| Path::new(path).exists());
    if found.is_none() {
        ensure!(
            std::env::var_os("OUTRIDER_TEST_STRICT").is_none(),
            "libfaketime is missing; tests/run installs it"
        );
        eprintln!("SKIPPED: libfaketime is not in {PLACES:?}; tests/run installs it");
    }
    Ok(found)
}
