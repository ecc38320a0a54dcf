//! The names of keys and fields.

use outrider_model::{EndpointId, Recipient};

/// The group in which all workers read.
pub(super) const GROUP: &str = "workers";
/// The field of an entry that holds the job.
pub(super) const JOB_FIELD: &str = "job";

/// The layout of what the keys hold. A shard of another layout has other keys: its jobs are queued
/// again in this one, as after a loss.
const LAYOUT: u32 = 2;

/// The keys of one shard. The hash tag holds the number of shards: with another number all keys are
/// others, so that a shard never holds jobs of endpoints that are not its own; and in a cluster all
/// keys of a shard are on one node.
pub(super) struct ShardKeys {
    all: [String; 5],
    probe: String,
}

impl ShardKeys {
    pub(super) fn new(prefix: &str, shards: u32, shard: u32) -> Self {
        let name = |name: &str| format!("{{{prefix}:{LAYOUT}:{shards}:{shard}}}:{name}");
        // Scripts take the first four or five: keep the order.
        Self {
            all: ["jobs", "held", "counts", "epoch", "identity"].map(name),
            probe: name("probe"),
        }
    }

    /// Stream, held, counts, epoch, identity.
    pub(super) fn all(&self) -> &[String; 5] {
        &self.all
    }

    /// The stream of jobs: entries with one field, the encoded job.
    pub(super) fn stream(&self) -> &str {
        &self.all[0]
    }

    /// The hash of what waits or is held: the delivery's 16 bytes to its [`place`].
    pub(super) fn held(&self) -> &str {
        &self.all[1]
    }

    /// All, and the one on which commands are tried.
    pub(super) fn with_probe(&self) -> [&str; 6] {
        let [jobs, held, counts, epoch, identity] = self.all.each_ref().map(String::as_str);
        [jobs, held, counts, epoch, identity, &self.probe]
    }

    /// The hash of what of those each has, and all together: the fields are named below.
    pub(super) fn counts(&self) -> &str {
        &self.all[2]
    }
}

/// The channel on which changes of configuration are announced.
pub(super) fn changes_channel(prefix: &str) -> String {
    format!("{prefix}:changes")
}

/// The field of the units of all jobs.
pub(super) const TOTAL_UNITS: &str = "t";

/// The field of the number of an endpoint's jobs. The scripts make these names themselves, too.
pub(super) fn endpoint_jobs(endpoint: EndpointId) -> [u8; 17] {
    tagged(b'n', endpoint.as_bytes())
}

/// The fields of the units of an endpoint's, a project's and an organisation's jobs.
pub(super) fn units(who: &Recipient) -> [[u8; 17]; 3] {
    [
        tagged(b'e', who.endpoint.as_bytes()),
        tagged(b'p', who.project.as_bytes()),
        tagged(b'o', who.organization.as_bytes()),
    ]
}

fn tagged(tag: u8, id: &[u8; 16]) -> [u8; 17] {
    let mut field = [tag; 17];
    field[1..].copy_from_slice(id);
    field
}

/// A job's place in the window: its generation and its units (4 bytes each, the highest first),
/// then 16 bytes each of the endpoint, the project and the organisation. All that freeing it takes.
pub(super) fn place(generation: u32, units: u32, who: &Recipient) -> [u8; 56] {
    let mut place = [0; 56];
    place[..4].copy_from_slice(&generation.to_be_bytes());
    place[4..8].copy_from_slice(&units.to_be_bytes());
    place[8..24].copy_from_slice(who.endpoint.as_bytes());
    place[24..40].copy_from_slice(who.project.as_bytes());
    place[40..].copy_from_slice(who.organization.as_bytes());
    place
}

/// The generation in a place.
pub(super) fn generation(place: &[u8]) -> Option<u32> {
    place.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_a_shard_share_a_hash_tag_that_names_the_number_of_shards() {
        let keys = ShardKeys::new("outrider", 4, 3);
        assert_eq!(keys.stream(), "{outrider:2:4:3}:jobs");
        assert!(keys.all().iter().all(|key| key.starts_with("{outrider:2:4:3}:")));
        assert_eq!(keys.with_probe()[5], "{outrider:2:4:3}:probe");
        assert_ne!(
            ShardKeys::new("outrider", 2, 0).stream(),
            ShardKeys::new("outrider", 1, 0).stream()
        );
    }
}
