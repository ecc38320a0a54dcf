//! Limits that are part of the API. Limits that operators can change are settings instead.

/// Maximum length of an event type, in bytes.
pub const EVENT_TYPE_BYTES: usize = 256;
/// Maximum length of a display name, in characters.
pub const NAME_CHARACTERS: usize = 128;
/// Maximum length of a description, in characters.
pub const DESCRIPTION_CHARACTERS: usize = 1_024;
/// Maximum length of an idempotency key, ordering key or owner id, in bytes.
pub const KEY_BYTES: usize = 255;
/// Maximum length of a request id, in bytes.
pub const REQUEST_ID_BYTES: usize = 128;
/// Maximum number of headers or metadata entries of an object.
pub const MAP_ENTRIES: usize = 32;
/// Maximum size of the headers or metadata of an object, names and values together, in bytes.
pub const MAP_BYTES: usize = 8 * 1_024;
/// Maximum number of events in a batch.
pub const BATCH_EVENTS: usize = 1_000;
/// Maximum number of patterns in a subscription.
pub const SUBSCRIPTION_EVENT_TYPES: usize = 256;
/// Maximum length of a media type, in bytes.
pub const CONTENT_TYPE_BYTES: usize = 255;
/// Maximum length of a URL, in bytes.
pub const URL_BYTES: usize = 2_048;
/// Maximum nesting of JSON.
pub const JSON_DEPTH: usize = 128;
/// Deadline of an endpoint for one exchange, in milliseconds: minimum, default, maximum.
pub const TIMEOUT_MILLIS: (u64, u64, u64) = (1_000, 15_000, 30_000);
/// Requests of an endpoint in flight: minimum, default, maximum.
pub const MAX_IN_FLIGHT: (u32, u32, u32) = (1, 64, 1_024);
/// Maximum time until deliver_at, in days.
pub const DELIVER_AT_DAYS: u64 = 30;
/// Entries of a page: default, maximum.
pub const PAGE_SIZE: (u32, u32) = (50, 500);
/// Maximum number of event types in the catalog of a project.
pub const EVENT_TYPES: u32 = 5_000;
/// Maximum length of a JSON Schema, in bytes.
pub const SCHEMA_BYTES: usize = 64 * 1_024;
/// Maximum number of schema violations reported for a payload.
pub const SCHEMA_VIOLATIONS: usize = 20;
/// Maximum length of the name of a stream of events, in bytes.
pub const STREAM_ID_BYTES: usize = 64;
/// Retention of payloads if it is shorter than that of events, in seconds: minimum, maximum.
pub const PAYLOAD_RETENTION_SECONDS: (u64, u64) = (60, 3_650 * 86_400);
