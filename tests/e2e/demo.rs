//! The first command of the README.

use std::{process::Command, time::Duration};

use outrider_tests::{cluster::binary, leash::Directory, logs, process::Process};

#[test]
fn the_demo_ends_well_and_leaves_nothing_running() {
    let directory = Directory::create().unwrap();
    let mut command = Command::new(binary().unwrap());
    command.arg("demo").current_dir(directory.path());
    let mut demo = Process::start("demo", command, &directory).unwrap();
    let status = demo.wait(Duration::from_secs(120)).unwrap();
    let said = logs::tail(demo.log(), 200);
    assert!(status.success(), "{status}: {said}");
    assert!(
        said.contains("evt_") && said.to_lowercase().contains("verified"),
        "it shows what arrived: {said}"
    );
}
