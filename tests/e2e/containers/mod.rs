//! Dockerfile and compose.yaml, as far as they can be tried without an engine of containers: what
//! they say is read and compared with the binary, and what they start is started under the
//! conditions that they ask for.

mod files;
mod jail;
mod parsed;
mod started;
