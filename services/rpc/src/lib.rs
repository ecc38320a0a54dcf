//! What every role needs to call other roles and to serve calls: errors on the wire, authentication
//! and bounds of requests, TLS, the traits by which roles call each other (in process or over
//! gRPC), and the server loop.
//!
//! It must never contain a role's logic, and must not know SQL or Redis.
//!
//! A module may use those above it, never those below it:
//!
//! - `tls`: certificates, handshakes, and the connection that results.
//! - `wire`: errors, fields and bodies.
//! - `guard`: who may call what, with which bounds.
//! - `channels`: clients and servers between roles.

mod channels;
mod guard;
pub mod tls;
mod wire;

pub use channels::{
    channel,
    dial::{self, DialError, Dialer, NoConnection, NoName},
    intake::{self, Intake},
    keys::{self, KeyCacheOptions, RememberedKeys, RemoteKeys},
    listen,
    proxy::{self, RemoteDialer},
    resend::{Resend, ResendingChannel},
    role::{self, RoleChannel},
    server,
    settlement::{self, Settlement},
    streams::Streams,
};
pub use guard::{
    auth::{Admitted, Authenticate, Guard, admit, principal},
    bounds::{self, Bounded},
    internal::{self, InternalToken},
    methods,
    policy::PolicyInForce,
    slots::{ConnectionSlot, ConnectionSlots},
};
pub use tls::{Acceptor, Tls, TlsFiles, socket::Socket};
pub use wire::{
    cause, convert, ending,
    framing::MessageFraming,
    holding::HoldingBody,
    page, pieces,
    request_errors::{self, RequestErrors},
    status::{self, from_status, http_status, to_status},
    validate,
};
