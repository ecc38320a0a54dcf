//! The public face.

use crate::metrics::{seconds, section};

section! {
    "gateway" {
        /// Requests that were answered to the end, by protocol (rest, grpc, grpc-web), HTTP method,
        /// route (template of the path, or path of the gRPC method; - for none) and status (HTTP
        /// status of REST, name of the gRPC code else; cancelled when the client went away,
        /// client-deadline when the client's own deadline passed before ours). 5xx, INTERNAL,
        /// UNKNOWN, UNAVAILABLE and DATA_LOSS are faults of Outrider.
        REQUESTS: IntCounterVec("outrider_gateway_requests_total", ["protocol", "method", "route",
            "status"]);
        /// Time from the head of a request to the last byte of its answer; of streams, to their
        /// end.
        REQUEST_SECONDS: HistogramVec("outrider_gateway_request_seconds", ["protocol", "method",
            "route"], seconds);
        /// Requests under way, streams included.
        REQUESTS_OPEN: IntGauge("outrider_gateway_requests_open");
        /// Calls of streaming methods under way.
        STREAMS_OPEN: IntGauge("outrider_gateway_streams_open");
        /// Open connections of clients.
        CONNECTIONS: IntGauge("outrider_gateway_connections");
        /// Connections that made room for new ones: on which no request had a good API key, or that
        /// were idle and beyond their caller's share.
        CONNECTIONS_DISPLACED: IntCounter("outrider_gateway_connections_displaced_total");
        /// Connections that were closed at once because there were too many.
        CONNECTIONS_REFUSED: IntCounter("outrider_gateway_connections_refused_total");
        /// Requests that were refused by their API key before anything of their body was read, by
        /// reason (docs/errors.md).
        REFUSED_UNREAD: IntCounterVec("outrider_gateway_refused_unread_total", ["reason"]);
        /// Checks of API keys by a gateway in a process of its own that were answered from its
        /// memory (hit), or for which a role was asked (miss); of these, those that no role could
        /// answer and that were answered from memory all the same (outage).
        KEY_LOOKUPS: IntCounterVec("outrider_gateway_key_lookups_total", ["result"]);
        /// API keys in that memory, by what they are (valid, invalid).
        KEYS: IntGaugeVec("outrider_gateway_keys", ["kind"]);
        /// Bytes of request bodies that were read and not yet answered, in steps of 1 KiB.
        BUFFERED_BYTES: IntGauge("outrider_gateway_buffered_bytes");
        /// Bytes of answers over 16 KiB that their clients have not taken whole, in steps of 1 KiB.
        UNSENT_BYTES: IntGauge("outrider_gateway_unsent_bytes");
    }
}
