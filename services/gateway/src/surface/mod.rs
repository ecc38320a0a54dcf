//! What the port serves: gRPC, gRPC-web, REST, and the gateway's own pages and services.

pub(crate) mod admission;
mod grpc;
mod grpc_call;
pub(crate) mod handler;
mod health;
pub(crate) mod own;
pub(crate) mod page;
pub(crate) mod rest;
mod stream;
mod surfaces;
mod timed;
mod web;

pub(crate) use surfaces::Surfaces;
