//! Reads the entries of a stream from Redis's replies.

use ::redis::Value;
use bytes::Bytes;
use outrider_model::Job;
use outrider_proto::internal;
use prost::Message as _;

use super::{
    job::{self, Decoded, Unusable},
    keys::JOB_FIELD,
};

/// The entries that were read from a stream.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// The entry and its job.
    pub(super) jobs: Vec<(String, Job)>,
    /// Jobs that this version cannot send. Their places must be freed.
    pub(super) unusable: Vec<(String, Unusable, &'static str)>,
    /// Entries that are not Outrider's or cannot be decoded. They must be removed.
    pub(super) garbage: Vec<String>,
}

impl Batch {
    /// Reads the reply to XREADGROUP for one stream: nothing, or the stream's name with its
    /// entries.
    pub(super) fn of_streams(answer: Value) -> Option<Self> {
        match answer {
            Value::Nil => Some(Self::default()),
            // RESP3 replies with a map.
            Value::Map(streams) => streams
                .into_iter()
                .next()
                .map_or_else(|| Some(Self::default()), |(_, entries)| Self::of_entries(entries)),
            Value::Array(streams) => match streams.into_iter().next() {
                None => Some(Self::default()),
                Some(Value::Array(stream)) => stream.into_iter().nth(1).and_then(Self::of_entries),
                Some(_) => None,
            },
            _ => None,
        }
    }

    /// Reads a list of entries, as XCLAIM and XREADGROUP reply.
    pub(super) fn of_entries(entries: Value) -> Option<Self> {
        let Value::Array(entries) = entries else { return None };
        let mut batch = Self::default();
        for entry in entries {
            let Value::Array(parts) = entry else { return None };
            let mut parts = parts.into_iter();
            let Some(Value::BulkString(id)) = parts.next() else { return None };
            let id = String::from_utf8(id).ok()?;
            match parts.next().and_then(decode) {
                Some(Decoded::Job(job)) => batch.jobs.push((id, job)),
                Some(Decoded::Unusable { job, why }) => batch.unusable.push((id, job, why)),
                None => batch.garbage.push(id),
            }
        }
        Some(batch)
    }
}

/// Decodes the job in an entry's fields, if there is one.
fn decode(fields: Value) -> Option<Decoded> {
    let Value::Array(fields) = fields else { return None };
    let mut fields = fields.into_iter();
    let (Some(Value::BulkString(name)), Some(Value::BulkString(job)), None) =
        (fields.next(), fields.next(), fields.next())
    else {
        return None;
    };
    if name != JOB_FIELD.as_bytes() {
        return None;
    }
    // The payload is not copied: `Bytes` are decoded as slices.
    job::decode(internal::Job::decode(Bytes::from(job)).ok()?)
}

/// Whether the text is the name of an entry, `milliseconds-number`. Any other text would make the
/// server refuse a whole batch.
pub(super) fn is_entry(text: &str) -> bool {
    text.split_once('-').is_some_and(|(millis, number)| is_number(millis) && is_number(number))
}

/// Returns the smallest name after this one.
pub(super) fn after(entry: &str) -> Option<String> {
    let (millis, number) = entry.split_once('-')?;
    let (millis, number): (u64, u64) = (millis.parse().ok()?, number.parse().ok()?);
    match number.checked_add(1) {
        Some(number) => Some(format!("{millis}-{number}")),
        None => Some(format!("{}-0", millis.checked_add(1)?)),
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_digit())
        && text.parse::<u64>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::{super::job::tests::job, *};

    fn text(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn entry(id: &str, field: &str, value: Vec<u8>) -> Value {
        Value::Array(vec![text(id), Value::Array(vec![text(field), Value::BulkString(value)])])
    }

    #[test]
    fn jobs_and_garbage_are_told_apart() {
        let encoded = || job::encode(&job());
        let short = internal::Job { delivery_id: Bytes::from_static(b"short"), ..encoded() };
        let newer = internal::Job { version: 2, ..encoded() };
        let entries = Value::Array(vec![
            entry("1-0", JOB_FIELD, encoded().encode_to_vec()),
            entry("2-0", "other", encoded().encode_to_vec()),
            entry("3-0", JOB_FIELD, vec![0xff; 9]),
            entry("4-0", JOB_FIELD, short.encode_to_vec()),
            entry("5-0", JOB_FIELD, Vec::new()),
            Value::Array(vec![text("6-0"), Value::Nil]),
            entry("7-0", JOB_FIELD, newer.encode_to_vec()),
        ]);
        let batch =
            Batch::of_streams(Value::Array(vec![Value::Array(vec![text("stream"), entries])]))
                .expect("an answer");
        assert_eq!(batch.jobs, [("1-0".to_owned(), job())]);
        assert_eq!(batch.garbage, ["2-0", "3-0", "4-0", "5-0", "6-0"]);
        assert_eq!(batch.unusable.len(), 1);
        assert_eq!(batch.unusable[0].0, "7-0");
    }

    #[test]
    fn no_answer_is_an_empty_batch_and_a_strange_one_is_none() {
        assert!(Batch::of_streams(Value::Nil).expect("empty").jobs.is_empty());
        assert!(Batch::of_streams(Value::Int(1)).is_none());
    }

    #[test]
    fn entries_are_named_by_two_numbers() {
        assert!(is_entry("1700000000000-0"));
        for wrong in ["", "-", "1-", "-1", "+1-0", "1-0-0", "1 -0", "18446744073709551616-0"] {
            assert!(!is_entry(wrong), "{wrong}");
        }
        assert_eq!(after("5-7").as_deref(), Some("5-8"));
        assert_eq!(after("5-18446744073709551615").as_deref(), Some("6-0"));
        assert_eq!(after("18446744073709551615-18446744073709551615"), None);
    }
}
