//! The targets.

pub mod answer;
pub mod connect;
pub mod cursors;
pub mod framing;
pub mod gateway;
pub mod grpc;
pub mod lines;
pub mod rest;
pub mod url;
