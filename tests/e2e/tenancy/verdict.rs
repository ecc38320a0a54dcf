//! What a caller learns from an answer, over any surface.

use anyhow::{Result, ensure};
use outrider_tests::client::{Outcome, Reply};
use serde_json::Value;
use tonic_types::StatusExt;

use super::rows::Ids;

/// An answer without the parts that always differ: ids that the caller gave, the request id, the
/// date.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// An answer as JSON.
    Answer(Value),
    /// A stream is open.
    Open,
    /// A refusal over gRPC.
    Grpc { code: String, reason: String, message: String, details: Vec<u8> },
    /// A refusal over REST: the body, and the names of the headers.
    Rest { status: u16, body: Value, headers: Vec<String> },
}

/// Masks the ids that a message repeats, because they come from the caller's own request.
fn masked(text: &str, ids: &Ids) -> String {
    ids.iter().fold(text.to_owned(), |text, (field, id)| text.replace(id, field))
}

impl Verdict {
    /// Reads the gRPC answer to a request with these ids.
    pub fn of_grpc(outcome: Outcome, ids: &Ids) -> Result<Self> {
        Ok(match outcome {
            Outcome::Answer(message) => {
                let mut answer = serde_json::to_value(message)?;
                // The cursor of a tail moves with the commits of others, and its heartbeats follow
                // time.
                if let Some(fields) = answer.as_object_mut() {
                    fields.remove("cursor");
                    fields.entry("heartbeat").and_modify(|beat| *beat = Value::Null);
                }
                Self::Answer(answer)
            }
            Outcome::Open => Self::Open,
            Outcome::Refused(status) => Self::Grpc {
                code: format!("{:?}", status.code()),
                reason: status.get_details_error_info().map(|info| info.reason).unwrap_or_default(),
                message: masked(status.message(), ids),
                details: status
                    .get_error_details_vec()
                    .iter()
                    .flat_map(|detail| format!("{detail:?}").into_bytes())
                    .collect(),
            },
        })
    }

    /// Reads the REST answer to a request with these ids.
    pub fn of_rest(reply: Reply, ids: &Ids) -> Result<Self> {
        if reply.status.is_success() {
            return Ok(Self::Answer(reply.json()?));
        }
        let mut body: Value = serde_json::from_str(&masked(&reply.json()?.to_string(), ids))?;
        if let Some(error) = body["error"].as_object_mut() {
            error.shift_remove("request_id");
        }
        let mut headers: Vec<_> = reply.headers.keys().map(ToString::to_string).collect();
        headers.sort();
        Ok(Self::Rest { status: reply.status.as_u16(), body, headers })
    }

    /// Returns the answer, or `null` for a stream that has sent nothing.
    pub fn answer(&self) -> Option<Value> {
        match self {
            Self::Answer(value) => Some(value.clone()),
            Self::Open => Some(Value::Null),
            _ => None,
        }
    }

    /// Fails unless it is this refusal.
    pub fn is_refused(&self, code: &str, status: u16, reason: &str) -> Result<()> {
        let so = match self {
            Self::Grpc { code: given, reason: why, .. } => given == code && why == reason,
            Self::Rest { status: given, body, .. } => {
                *given == status && body["error"]["reason"] == reason
            }
            _ => false,
        };
        ensure!(so, "expected {code} {reason}: {self:?}");
        Ok(())
    }

    /// Fails unless it is an answer that contains none of the ids, except those that the caller
    /// knows.
    pub fn shows_none_of(&self, ids: &Ids, but: &[&str]) -> Result<()> {
        let text = match self {
            Self::Answer(value) => value.to_string(),
            Self::Open => return Ok(()),
            _ => anyhow::bail!("expected an answer: {self:?}"),
        };
        let shown = ids
            .iter()
            .filter(|(field, _)| !but.contains(*field))
            .find(|(_, id)| text.contains(id.as_str()));
        ensure!(shown.is_none(), "shows {shown:?}: {text}");
        Ok(())
    }
}
