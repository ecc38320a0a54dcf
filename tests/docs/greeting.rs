//! Runs the commands that `outrider dev` prints for copying, exactly as it prints them.

use anyhow::{Context, Result, ensure};

use crate::{
    page::{Action, Step},
    session::Session,
};

fn step(action: Action, text: &str) -> Step {
    Step { line: 0, action, text: text.to_owned() }
}

/// Returns how to run a line. A command that keeps running is started; a delivery may take a
/// moment.
fn action(line: &str) -> Action {
    let until = |text: &str| vec![text.to_owned()];
    match line {
        line if line.starts_with("outrider listen") => Action::Background(until("listening")),
        line if line.starts_with("outrider publish") => Action::Until(until("delivery_count  1")),
        line if line.starts_with("outrider deliveries") => Action::Until(until("delivered")),
        _ => Action::Run,
    }
}

fn copy_and_paste() -> Result<()> {
    let mut session = Session::new("")?;
    session.step(&step(Action::Background(vec!["Ctrl-C".to_owned()]), "outrider dev"))?;
    let lines: Vec<_> = session
        .printed()
        .lines()
        .filter_map(|line| line.strip_prefix("  "))
        .map(str::to_owned)
        .collect();
    for command in [
        "export ",
        "outrider publish ",
        "outrider listen ",
        "curl ",
        "grpcurl ",
        "outrider deliveries ",
    ] {
        ensure!(
            lines.iter().any(|line| line.starts_with(command)),
            "no line of {command}: {lines:#?}"
        );
    }
    for line in &lines {
        session.step(&step(action(line), line)).with_context(|| line.clone())?;
    }
    session.stop()
}

#[test]
fn the_lines_that_dev_prints_run_as_they_are() {
    if let Err(error) = copy_and_paste() {
        panic!("{error:#}");
    }
}
