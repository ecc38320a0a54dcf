//! The sections of the roles that send: worker and egress.

use serde::{Deserialize, Serialize};

use super::{KIB, MIB};
use crate::config::{Port, Span, Target};

section! {
    /// The role that signs and sends.
    Worker {
        /// Where dispatch is when it is not in this process.
        dispatch_url: String = "http://127.0.0.1:8082".into(),
        /// Where the egress proxy is when it is not in this process, as `HOST:PORT`.
        egress_address: String = "127.0.0.1:8084".into(),
        /// Slots: requests under way at once, at least 8. They are divided into fair shares: alone,
        /// an organisation has half of them, each of its projects a quarter, each endpoint an
        /// eighth.
        max_in_flight: u32 = 8_192,
        /// Jobs in hand, from reading until they are settled; 0 for a quarter more than all shards
        /// of the queue hold together. It must not be less than they hold, nor less than
        /// max_in_flight: jobs that wait for their turn would keep others in the queue.
        max_jobs: usize = 0,
        /// The window of an endpoint that has not answered lately: requests to it under way at
        /// once. It grows by one with each 2xx answer, up to the endpoint's own `max_in_flight`,
        /// and is halved by each timeout.
        initial_window: u32 = 8,
        /// A request to an endpoint that has not answered lately, or whose last request timed out,
        /// takes one slot for each so many bytes of a payload that is too large to travel with its
        /// job. At least 1.
        slot_payload_bytes: usize = 128 * KIB,
        /// How long the window of an endpoint is remembered that nothing is heard of.
        window_memory: Span = Span::seconds(600),
        /// Bytes of payloads in hand that were too large to travel with their jobs, divided into
        /// fair shares as the slots are. At least 8 KiB.
        payload_bytes: usize = 256 * MIB,
        /// Reads of such payloads under way at once, each of a batch. At least 1.
        payload_reads: usize = 4,
        /// Bytes of answers (bodies and headers) in reports that dispatch has not settled, divided
        /// into fair shares as the slots are; answers below 1 KiB do not count. One endpoint may
        /// hold an eighth. An answer that finds no room is reported by its status alone. At least 8
        /// KiB, and at least eight times response_kept_bytes.
        unreported_bytes: usize = 64 * MIB,
        /// Jobs taken from the queue at once.
        read_batch: usize = 256,
        /// The part of an answer's body that is kept, in bytes. At most an eighth of
        /// unreported_bytes. All processes must agree.
        response_kept_bytes: usize = 16 * KIB,
        /// The part of an answer's body that is read, in bytes; of a longer one the connection is
        /// closed. At least response_kept_bytes.
        response_read_bytes: usize = 64 * KIB,
        /// The head of an answer with the interim answers before it, in bytes. Of a larger one the
        /// status counts, if its line has come; else it is a bad response. At least 8192.
        response_head_bytes: usize = 64 * KIB,
        /// Interim answers (1xx) before an answer; more are a bad response.
        response_interim_answers: usize = 8,
        /// Bytes read from an endpoint's connection in one exchange, TLS, heads, chunk sizes and
        /// trailers included; the TLS handshake may take as many again. More end the exchange. At
        /// least response_head_bytes + response_read_bytes.
        response_wire_bytes: usize = 256 * KIB,
        /// Reads from an endpoint's connection in one exchange, which an endpoint that sends single
        /// bytes uses up; the TLS handshake may take as many again. More end the exchange. At least
        /// 64.
        response_wire_reads: usize = 1_024,
        /// Idle connections kept to one host and port of endpoints.
        pool_idle_per_host: usize = 64,
        /// Idle connections to endpoints kept in all. Where there is no room, those who have most
        /// make it.
        pool_idle_total: usize = 4_096,
        /// How long an idle connection is kept to an endpoint that does not say how long it keeps
        /// it (`Keep-Alive: timeout`). It is less for one that ended connections before.
        pool_idle_timeout: Span = Span::millis(1_500),
        /// How long an idle connection is kept at most, whatever an endpoint says.
        pool_told_timeout: Span = Span::seconds(60),
        /// At shutdown: how long requests that began may take to end.
        drain: Span = Span::seconds(30),
        /// A PEM file of certificates to trust besides the public authorities; empty for none. An
        /// authority's vouches for others; any other certificate is trusted itself, for the names
        /// in it and until it expires.
        extra_roots_file: String = String::new(),
    }
}

section! {
    /// The role that opens connections to the outside.
    Egress {
        /// Address and port of the proxy for workers in other processes.
        listen: String = "127.0.0.1:8084".into(),
        /// For development only: permits loopback addresses, which lets customers reach this
        /// machine's own services.
        allow_loopback: bool = false,
        /// Ports of other services (SSH, mail, databases, control planes …; the list is in
        /// docs/egress.md) that endpoints may have all the same. Give it to the processes with
        /// admin and to those with egress.
        allowed_ports: Vec<Port> = Vec::new(),
        /// What may be reached besides the public internet: networks (`10.20.0.0/16`), addresses,
        /// names (`receiver`) and all names below one (`*.svc.cluster.local`), each with a port
        /// (`:8080`) or ports (`:8000-8999`) or for all that webhooks may have; IPv6 with a port is
        /// in brackets. At most 1,000. Metadata services of clouds need their very address. Give it
        /// to the processes with admin and to those with egress; a change takes effect without a
        /// restart.
        allow: Vec<Target> = Vec::new(),
        /// What may not be reached, whatever allows it, in the same form. At most 1,000.
        deny: Vec<Target> = Vec::new(),
        /// Connections at once.
        max_tunnels: usize = 10_000,
        /// Addresses of one name; a name with more is not resolved.
        max_name_addresses: usize = 64,
        /// How long a name may take to resolve.
        dns_timeout: Span = Span::seconds(5),
        /// How long a connection may take.
        connect_timeout: Span = Span::seconds(10),
        /// The address from which connections are made; empty to let the system choose.
        source_address: String = String::new(),
    }
}
