//! Bounds that are part of the API. Those that operators may change are settings; these are not.

/// An event type, in bytes.
pub const EVENT_TYPE_BYTES: usize = 256;
/// A name shown to people, in characters.
pub const NAME_CHARACTERS: usize = 128;
/// A description, in characters.
pub const DESCRIPTION_CHARACTERS: usize = 1_024;
/// An idempotency key, ordering key or owner id, in bytes.
pub const KEY_BYTES: usize = 255;
/// A request id, in bytes.
pub const REQUEST_ID_BYTES: usize = 128;
/// Headers or metadata entries of one object.
pub const MAP_ENTRIES: usize = 32;
/// Headers or metadata of one object, names and values together, in bytes.
pub const MAP_BYTES: usize = 8 * 1_024;
/// Events in one batch.
pub const BATCH_EVENTS: usize = 1_000;
/// Patterns in one subscription.
pub const SUBSCRIPTION_EVENT_TYPES: usize = 256;
/// A media type, in bytes.
pub const CONTENT_TYPE_BYTES: usize = 255;
/// A URL, in bytes.
pub const URL_BYTES: usize = 2_048;
/// Nesting of JSON.
pub const JSON_DEPTH: usize = 128;
/// An endpoint's deadline for one exchange, in milliseconds: least, default, most.
pub const TIMEOUT_MILLIS: (u64, u64, u64) = (1_000, 15_000, 30_000);
/// An endpoint's requests under way at once: least, default, most.
pub const MAX_IN_FLIGHT: (u32, u32, u32) = (1, 64, 1_024);
/// How far ahead deliver_at may lie, in days.
pub const DELIVER_AT_DAYS: u64 = 30;
/// Entries of a page: default, most.
pub const PAGE_SIZE: (u32, u32) = (50, 500);
/// Event types in the catalogue of one project.
pub const EVENT_TYPES: u32 = 5_000;
/// The text of one JSON Schema, in bytes.
pub const SCHEMA_BYTES: usize = 64 * 1_024;
/// Violations of a schema that are told of one payload.
pub const SCHEMA_VIOLATIONS: usize = 20;
/// The name of a stream of events, in bytes.
pub const STREAM_ID_BYTES: usize = 64;
/// How long a project may keep payloads, when not as long as its events, in seconds: least, most.
pub const PAYLOAD_RETENTION_SECONDS: (u64, u64) = (60, 3_650 * 86_400);
