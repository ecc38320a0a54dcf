//! The rules of the gateway's bounds, and of the sizes of requests and events, which all depend on
//! each other.

use std::time::Duration;

use super::check;
use crate::config::{Config, Error, Gateway};

const MIB: usize = 1024 * 1024;
/// What the databases take as one value, with room for what is beside it.
const MOST_PAYLOAD: usize = 256 * MIB;
/// What they take as one statement, likewise.
const MOST_REQUEST: usize = 512 * MIB;

pub fn public_limits(gateway: &Gateway) -> Result<(), Error> {
    check("gateway.max_connections", gateway.max_connections > 0, "must be at least 1")?;
    let some_are_left = gateway.reserved_connections < gateway.max_connections;
    check(
        "gateway.reserved_connections",
        some_are_left,
        "must be less than gateway.max_connections",
    )?;
    check(
        "gateway.max_header_bytes",
        (8_192..=1 << 20).contains(&gateway.max_header_bytes),
        "must be 8192 to 1048576",
    )?;
    check("gateway.max_headers", (1..=1_000).contains(&gateway.max_headers), "must be 1 to 1000")?;
    check(
        "gateway.max_uri_bytes",
        (256..=65_534).contains(&gateway.max_uri_bytes),
        "must be 256 to 65534",
    )?;
    check(
        "gateway.max_concurrent_streams",
        gateway.max_concurrent_streams > 0,
        "must be at least 1",
    )?;
    check("gateway.max_pending_resets", gateway.max_pending_resets > 0, "must be at least 1")?;
    check("gateway.max_error_resets", gateway.max_error_resets > 0, "must be at least 1")?;
    check(
        "gateway.max_abandoned_requests",
        gateway.max_abandoned_requests > 0,
        "must be at least 1",
    )?;
    check("gateway.max_decodings", gateway.max_decodings > 0, "must be at least 1")?;
    let lifetime = gateway.key_lifetime.0;
    let in_bounds = (Duration::from_millis(100)..=Duration::from_secs(60)).contains(&lifetime);
    check("gateway.key_lifetime", in_bounds, "must be 100ms to 60s")?;
    check("gateway.max_valid_keys", gateway.max_valid_keys > 0, "must be at least 1")?;
    check("gateway.max_invalid_keys", gateway.max_invalid_keys > 0, "must be at least 1")?;
    check("gateway.key_questions", gateway.key_questions > 0, "must be at least 1")?;
    for (key, span) in [
        ("gateway.request_timeout", gateway.request_timeout),
        ("gateway.header_read_timeout", gateway.header_read_timeout),
        ("gateway.idle_timeout", gateway.idle_timeout),
        ("gateway.keep_alive_interval", gateway.keep_alive_interval),
        ("gateway.keep_alive_timeout", gateway.keep_alive_timeout),
    ] {
        check(key, span.0 >= Duration::from_millis(100), "must be at least 100ms")?;
    }
    let pinged = gateway.keep_alive_interval.0 < gateway.idle_timeout.0;
    check(
        "gateway.keep_alive_interval",
        pinged,
        "must be below gateway.idle_timeout, so that quiet streams are not cut",
    )
}

/// Streams of events and uploads.
pub fn streams(config: &Config) -> Result<(), Error> {
    check("ingest.max_streams", config.ingest.max_streams > 0, "must be at least 1")?;
    check(
        "ingest.stream_window_events",
        config.ingest.stream_window_events > 0,
        "must be at least 1",
    )?;
    check(
        "ingest.stream_window_bytes",
        config.ingest.stream_window_bytes > 0,
        "must be at least 1",
    )?;
    check(
        "ingest.stream_buffer_bytes",
        config.ingest.stream_buffer_bytes > 0,
        "must be at least 1",
    )?;
    let idle = config.ingest.stream_idle_timeout.0;
    check("ingest.stream_idle_timeout", idle >= Duration::from_secs(1), "must be at least 1s")?;
    check("gateway.max_uploads", config.gateway.max_uploads > 0, "must be at least 1")?;
    let idle = config.gateway.upload_idle_timeout.0;
    let in_bounds = (Duration::from_secs(1)..=Duration::from_secs(60)).contains(&idle);
    check("gateway.upload_idle_timeout", in_bounds, "must be 1s to 60s")
}

/// What may be sent must be able to arrive, to be kept and to be read again.
pub fn sizes(config: &Config) -> Result<(), Error> {
    let (gateway, ingest, worker) = (&config.gateway, &config.ingest, &config.worker);
    let (payload, batch, request) =
        (ingest.max_payload_bytes, ingest.max_batch_bytes, gateway.max_request_bytes);
    check(
        "ingest.max_payload_bytes",
        (1..=MOST_PAYLOAD).contains(&payload),
        "must be 1 to 268435456: no database keeps more",
    )?;
    check(
        "ingest.max_payload_bytes",
        payload <= batch,
        "must not be above ingest.max_batch_bytes",
    )?;
    check(
        "ingest.max_batch_bytes",
        batch <= request,
        "must not be above gateway.max_request_bytes",
    )?;
    check(
        "gateway.max_request_bytes",
        request <= MOST_REQUEST,
        "must not be above 536870912: no database takes more",
    )?;
    // Strictly: a body and what it becomes have one share.
    let a_share_holds_one = request < gateway.max_buffered_bytes / 4;
    check(
        "gateway.max_buffered_bytes",
        a_share_holds_one,
        "must be more than four times gateway.max_request_bytes",
    )?;
    let decodes = gateway.max_decoded_bytes >= 2 * request + MIB;
    check(
        "gateway.max_decoded_bytes",
        decodes,
        "must be at least 1 MiB more than twice gateway.max_request_bytes",
    )?;
    // As base64 in JSON, with all that an event has beside its payload.
    let shown = payload / 3 * 4 + MIB;
    let a_share_shows_one = shown <= gateway.max_unsent_bytes / 4;
    let message = "must be at least four times ingest.max_payload_bytes as base64, and 4 MiB: else \
        an event of that size is never shown";
    check("gateway.max_unsent_bytes", a_share_shows_one, message)?;
    let kept = worker.response_kept_bytes <= worker.unreported_bytes / 8;
    let message = "must be at least eight times worker.response_kept_bytes: an endpoint has an \
        eighth, and longer answers would never be kept";
    check("worker.unreported_bytes", kept, message)
}
