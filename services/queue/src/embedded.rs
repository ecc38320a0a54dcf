//! stub
pub struct EmbeddedQueue;
