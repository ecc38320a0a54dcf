//! An exchange with an endpoint: a request and its response, over HTTP/1.1 and a connection whose
//! costs are bounded.

mod answer;
mod answer_bounds;
mod client;
mod connections;
mod destination;
mod failure;
mod head;
mod phase;
mod request;
mod stream;
mod tls;

pub(crate) use answer::{Answer, End};
pub(crate) use client::{Client, Exchanged};
#[cfg(test)]
pub(crate) use connections::Body;
pub(crate) use destination::{Destination, Destinations};
pub(crate) use failure::Failure;
pub(crate) use request::build;
#[cfg(test)]
pub(crate) use stream::write_through;
#[cfg(test)]
pub(crate) use tls::tls as tls_text;
