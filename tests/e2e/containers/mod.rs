//! Tests Dockerfile and compose.yaml as far as that is possible without a container engine:
//! compares what they say with the binary, and starts what they start under the conditions that
//! they set.

mod files;
mod jail;
mod parsed;
mod started;
