//! What every role shares to speak and to be spoken to: errors on the wire, authentication, the
//! traits by which roles call each other (in process or by gRPC), and the server loop.
//!
//! It must never hold a role's logic, and knows neither SQL nor Redis.

pub mod again;
pub mod auth;
pub mod bounds;
pub mod cause;
pub mod channel;
pub mod convert;
pub mod dial;
pub mod ending;
mod fit;
pub mod intake;
pub mod internal;
pub mod kept;
pub mod keys;
pub mod listen;
pub mod methods;
pub mod page;
pub mod pieces;
pub mod place;
pub mod places;
pub mod policy;
pub mod proxy;
pub mod role;
pub mod server;
pub mod settlement;
pub mod socket;
pub mod status;
pub mod streams;
pub mod tls;
pub mod validate;
pub mod wire;

pub use again::Again;
pub use auth::{Admitted, Authenticate, Guard, admit, principal};
pub use bounds::Bounded;
pub use dial::{DialError, Dialer, NoConnection, NoName};
pub use intake::Intake;
pub use internal::InternalToken;
pub use kept::Kept;
pub use keys::{KeyCacheOptions, KeyServer, RememberedKeys, RemoteKeys};
pub use place::Place;
pub use places::{Places, Seat};
pub use policy::PolicyInForce;
pub use proxy::RemoteDialer;
pub use role::RoleChannel;
pub use settlement::Settlement;
pub use socket::Socket;
pub use status::{from_status, http_status, to_status};
pub use streams::Streams;
pub use tls::{Acceptor, Tls, TlsFiles};
pub use wire::Wire;
