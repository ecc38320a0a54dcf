//! `outrider listen`: shows webhooks that arrive on this machine.

use anyhow::{Context, Result};
use clap::Args;
use http::StatusCode;
use outrider_model::SigningSecret;

use crate::{
    receiver::{Arrived, Receiver},
    shutdown, stdout,
};

/// The options of the listener.
#[derive(Debug, Args)]
pub struct Listen {
    /// The port on 127.0.0.1; 0 for a free one.
    pub port: u16,
    /// The signing secret of the endpoint. Signatures are verified, and a webhook that does not
    /// verify is answered with 401.
    #[arg(long, value_name = "whsec_…", value_parser = secret)]
    pub secret: Option<SigningSecret>,
    /// The HTTP status of the responses, 200 to 599, to simulate a failing endpoint.
    #[arg(long, default_value_t = 204, value_parser = clap::value_parser!(u16).range(200..=599))]
    pub status: u16,
}

fn secret(text: &str) -> Result<SigningSecret, String> {
    SigningSecret::parse(text).map_err(|error| error.to_string())
}

/// Prints each webhook until SIGTERM, SIGINT or SIGHUP.
pub async fn run(options: Listen) -> Result<()> {
    let status = StatusCode::from_u16(options.status).context("--status")?;
    let mut receiver = Receiver::start(options.port, status).await?;
    if let Some(secret) = options.secret {
        receiver.expect(secret);
    }
    let address = receiver.address;
    stdout::line(format_args!("listening     http://{address}/ (any path), answering {status}"))?;
    let mut ended = std::pin::pin!(shutdown::requested_on_terminal());
    loop {
        tokio::select! {
            arrived = receiver.next() => match arrived {
                Some(arrived) => stdout::write(&written(&arrived))?,
                None => return Ok(()),
            },
            outcome = &mut ended => return outcome,
        }
    }
}

fn written(arrived: &Arrived) -> String {
    let (seconds, nanos) = arrived.at.parts();
    let at = prost_types::Timestamp { seconds, nanos: nanos / 1_000_000 * 1_000_000 };
    let mut text = format!("\n{at}  {}  signature {}\n", arrived.target, arrived.verdict());
    for (name, value) in &arrived.headers {
        text.push_str(&format!("{name}: {value}\n"));
    }
    text.push_str(&format!("\n{}\n", arrived.body));
    if arrived.body.len() < arrived.size {
        text.push_str(&format!("({} bytes in all)\n", arrived.size));
    }
    text
}
