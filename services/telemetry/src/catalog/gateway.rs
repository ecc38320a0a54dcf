//! The public API.

use crate::metrics::{seconds, section};

section! {
    "gateway" {
        /// Completed requests, by protocol (rest, grpc, grpc-web), HTTP method, route (the path
        /// template, or the path of the gRPC method; - if there is none) and status. The status is
        /// the HTTP status for REST, and the name of the gRPC code otherwise; cancelled if the
        /// client went away, client-deadline if the client's own deadline passed first. 5xx,
        /// INTERNAL, UNKNOWN, UNAVAILABLE and DATA_LOSS are faults of Outrider.
        REQUESTS: IntCounterVec("outrider_gateway_requests_total", ["protocol", "method", "route",
            "status"]);
        /// Time from the head of a request to the last byte of its response, or to the end of a
        /// stream.
        REQUEST_SECONDS: HistogramVec("outrider_gateway_request_seconds", ["protocol", "method",
            "route"], seconds);
        /// Requests in flight, including streams.
        REQUESTS_OPEN: IntGauge("outrider_gateway_requests_open");
        /// Calls of streaming methods in flight.
        STREAMS_OPEN: IntGauge("outrider_gateway_streams_open");
        /// Open client connections.
        CONNECTIONS: IntGauge("outrider_gateway_connections");
        /// Connections closed to make room for new ones. Candidates are connections without a
        /// request with a valid API key, and idle ones beyond their caller's share.
        CONNECTIONS_DISPLACED: IntCounter("outrider_gateway_connections_displaced_total");
        /// Connections closed at once because too many were open.
        CONNECTIONS_REFUSED: IntCounter("outrider_gateway_connections_refused_total");
        /// Requests refused because of their API key before their body was read, by reason
        /// (docs/errors.md).
        REFUSED_UNREAD: IntCounterVec("outrider_gateway_refused_unread_total", ["reason"]);
        /// API key lookups of a gateway in a process of its own, by result: hit (answered from its
        /// cache), miss (a role was asked), outage (no role could answer, and an expired entry of
        /// the cache was used).
        KEY_LOOKUPS: IntCounterVec("outrider_gateway_key_lookups_total", ["result"]);
        /// API keys in the cache of a gateway in a process of its own, by kind (valid, invalid).
        KEYS: IntGaugeVec("outrider_gateway_keys", ["kind"]);
        /// Bytes of request bodies that are read but not answered, in steps of 1 KiB.
        BUFFERED_BYTES: IntGauge("outrider_gateway_buffered_bytes");
        /// Bytes of responses over 16 KiB that clients have not read completely, in steps of 1 KiB.
        UNSENT_BYTES: IntGauge("outrider_gateway_unsent_bytes");
    }
}
