//! Filters that lists of events, deliveries and attempts share.

use outrider_model::{Error, EventType, Result, Timestamp};
use outrider_rpc::convert::{parse_id, parse_timestamp};

type Range = (Option<Timestamp>, Option<Timestamp>);

/// Reads a range of times, `[start, end)`.
pub fn time_range(
    start: Option<&prost_types::Timestamp>,
    end: Option<&prost_types::Timestamp>,
) -> Result<Range> {
    let start = start.map(|at| parse_timestamp("start_time", at)).transpose()?;
    let end = end.map(|at| parse_timestamp("end_time", at)).transpose()?;
    match (start, end) {
        // The range is empty, so the two were probably confused.
        (Some(start), Some(end)) if end <= start => {
            Err(Error::field("end_time", "must be after start_time"))
        }
        range => Ok(range),
    }
}

/// Returns the text of a time to which page tokens are bound.
pub fn time_text(at: Option<Timestamp>) -> String {
    at.map(|at| at.0.to_string()).unwrap_or_default()
}

/// Reads a filter by event type. A text that no event type can equal is refused.
pub fn optional_event_type(text: &str) -> Result<Option<String>> {
    if text.is_empty() {
        return Ok(None);
    }
    let parsed: EventType = parse_id("event_type", text)?;
    Ok(Some(parsed.as_str().to_owned()))
}
