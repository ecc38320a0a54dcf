//! Collects what is wrong with many answers, and reports it together.

use anyhow::{Result, ensure};

/// Collects failures, so that the first one does not end the test.
#[derive(Default)]
pub struct Findings(Vec<String>);

impl Findings {
    /// Records a failure.
    pub fn add(&mut self, result: Result<()>) {
        self.0.extend(result.err().map(|error| format!("{error:#}")));
    }

    /// Fails if anything was recorded, with the first fifty failures.
    pub fn finish(self) -> Result<()> {
        let shown = self.0.iter().take(50).cloned().collect::<Vec<_>>().join("\n");
        ensure!(self.0.is_empty(), "{} are wrong:\n{shown}", self.0.len());
        Ok(())
    }
}
