//! Judges answers to malformed requests.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// The form of answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Errors are JSON of the API.
    Rest,
    /// Errors are gRPC statuses in answers with 200, or HTTP refusals.
    Grpc,
    /// Anything that HTTP allows.
    Any,
}

/// UNKNOWN, INTERNAL, UNAVAILABLE and DATA_LOSS: faults of the server.
const OUR_FAULT: [u32; 4] = [2, 13, 14, 15];

/// Judges a gRPC status. It must have details, unless the caller is unknown.
pub fn grpc_status(code: u32, has_details: bool) -> Result<()> {
    ensure!(!OUR_FAULT.contains(&code), "grpc-status {code}");
    ensure!(code == 0 || has_details, "grpc-status {code} without details");
    Ok(())
}

/// Judges everything that an HTTP/1.1 connection received. A request that does not end may get
/// nothing. A `hasty` client, which gives the server no time, may get 504.
pub fn answer(bytes: &[u8], shape: Shape, hasty: bool) -> Result<()> {
    let text = String::from_utf8_lossy(bytes);
    let context = || format!("answered {text:.1500}");
    for line in text.lines().filter(|line| line.starts_with("HTTP/1.1 ")) {
        ensure!(
            !line.starts_with("HTTP/1.1 5") || (hasty && line.starts_with("HTTP/1.1 504 ")),
            context()
        );
    }
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return Ok(()) };
    let status: u16 =
        head.split(' ').nth(1).and_then(|status| status.parse().ok()).with_context(context)?;
    match shape {
        Shape::Grpc => {
            let mut found = text.match_indices("grpc-status:");
            let details = text.contains("grpc-status-details-bin:");
            found.try_for_each(|(at, name)| {
                let digits: String = text[at + name.len()..]
                    .trim_start()
                    .chars()
                    .take_while(char::is_ascii_digit)
                    .collect();
                grpc_status(digits.parse().with_context(context)?, details).with_context(context)
            })
        }
        Shape::Rest if status >= 400 && !body.is_empty() => {
            json_error(body, status).with_context(context)
        }
        // The answer to HEAD has the length of a body that it does not have.
        Shape::Rest if status >= 400 => {
            ensure!(
                head.contains("x-request-id: ") && !head.contains("content-length: 0"),
                context()
            );
            Ok(())
        }
        Shape::Rest | Shape::Any => Ok(()),
    }
}

fn json_error(body: &str, status: u16) -> Result<()> {
    let first = serde_json::Deserializer::from_str(body).into_iter::<Value>().next();
    let error = &first.context("no JSON")??["error"];
    ensure!(
        error["code"] == status && error["status"] != "INTERNAL" && error["status"] != "UNKNOWN",
        "{error}"
    );
    for field in ["reason", "message", "request_id"] {
        ensure!(error[field].as_str().is_some_and(|text| !text.is_empty()), "{field} is missing");
    }
    Ok(())
}
