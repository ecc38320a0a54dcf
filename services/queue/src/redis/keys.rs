//! The names of keys and fields.

use outrider_model::{EndpointId, ProjectId};

/// The group in which all workers read.
pub(super) const GROUP: &str = "workers";
/// The field of an entry that holds the job.
pub(super) const JOB_FIELD: &str = "job";

/// The keys of one shard. The hash tag holds the number of shards: with another number all keys are others, so that a shard never
/// holds jobs of endpoints that are not its own; and in a cluster all keys of a shard are on one node.
pub(super) struct ShardKeys([String; 5]);

impl ShardKeys {
    pub(super) fn new(prefix: &str, shards: u32, shard: u32) -> Self {
        // Scripts take the first four or five: keep the order.
        Self(["jobs", "held", "counts", "epoch", "identity"].map(|name| format!("{{{prefix}:{shards}:{shard}}}:{name}")))
    }

    /// Stream, held, counts, epoch, identity.
    pub(super) fn all(&self) -> &[String; 5] {
        &self.0
    }

    /// The stream of jobs: entries with one field, the encoded job.
    pub(super) fn stream(&self) -> &str {
        &self.0[0]
    }

    /// The hash of what waits or is held: the delivery's 16 bytes to the job's generation.
    pub(super) fn held(&self) -> &str {
        &self.0[1]
    }

    /// The hash of how many of those each endpoint and each project has.
    pub(super) fn counts(&self) -> &str {
        &self.0[2]
    }
}

/// The channel on which changes of configuration are announced.
pub(super) fn changes_channel(prefix: &str) -> String {
    format!("{prefix}:changes")
}

/// The field of an endpoint's count.
pub(super) fn endpoint_count(endpoint: EndpointId) -> [u8; 17] {
    tagged(b'e', endpoint.as_bytes())
}

/// The field of a project's count.
pub(super) fn project_count(project: ProjectId) -> [u8; 17] {
    tagged(b'p', project.as_bytes())
}

fn tagged(tag: u8, id: &[u8; 16]) -> [u8; 17] {
    let mut field = [tag; 17];
    field[1..].copy_from_slice(id);
    field
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_a_shard_share_a_hash_tag_that_names_the_number_of_shards() {
        let keys = ShardKeys::new("outrider", 4, 3);
        assert_eq!(keys.stream(), "{outrider:4:3}:jobs");
        assert!(keys.all().iter().all(|key| key.starts_with("{outrider:4:3}:")));
        assert_ne!(ShardKeys::new("outrider", 2, 0).stream(), ShardKeys::new("outrider", 1, 0).stream());
    }
}
