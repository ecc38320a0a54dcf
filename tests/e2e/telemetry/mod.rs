//! Metrics, traces and logs.

mod logs;
mod metrics;
mod traces;

use anyhow::Result;
use http::Method;
use outrider_tests::{Outrider, Shape, client::Rest, cluster::Options};
use serde_json::Value;
use tokio::task::block_in_place;

use crate::scenario;

/// Starts a separate Outrider with further settings.
fn start(shape: Shape, more: Value) -> Result<Outrider> {
    block_in_place(|| scenario::start(shape, &Options { more, ..Options::default() }, None))
}

/// Returns the metrics of every process, in the order of their start.
pub async fn scrapes(outrider: &Outrider) -> Result<Vec<String>> {
    let mut texts = Vec::new();
    for address in outrider.operations() {
        let reply =
            Rest::new(&format!("http://{address}"), None).send(Method::GET, "/metrics", "").await?;
        anyhow::ensure!(reply.status == 200, "{reply:?}");
        texts.push(String::from_utf8(reply.body.to_vec())?);
    }
    Ok(texts)
}

/// Returns the sum of the samples whose lines begin with this text.
pub fn sum(texts: &[String], begin: &str) -> f64 {
    let lines = texts.iter().flat_map(|text| text.lines()).filter(|line| line.starts_with(begin));
    lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}
