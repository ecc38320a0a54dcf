//! What is wrong with many answers, told together.

use anyhow::{Result, ensure};

/// Collects failures instead of ending with the first.
#[derive(Default)]
pub struct Findings(Vec<String>);

impl Findings {
    /// Notes a failure.
    pub fn add(&mut self, result: Result<()>) {
        self.0.extend(result.err().map(|error| format!("{error:#}")));
    }

    /// Fails if anything was noted, with the first fifty.
    pub fn finish(self) -> Result<()> {
        let shown = self.0.iter().take(50).cloned().collect::<Vec<_>>().join("\n");
        ensure!(self.0.is_empty(), "{} are wrong:\n{shown}", self.0.len());
        Ok(())
    }
}
