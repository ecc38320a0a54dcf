//! The names of keys and fields.

use outrider_model::{EndpointId, Recipient};

/// The consumer group of all workers.
pub(super) const GROUP: &str = "workers";
/// The field of an entry that holds the job.
pub(super) const JOB_FIELD: &str = "job";

/// The version of the layout of the keys. A shard of another layout has other keys, so its jobs are
/// queued again in this layout, as after a loss.
const LAYOUT: u32 = 2;

/// The keys of one shard. The hash tag contains the number of shards. If that number changes, all
/// keys change, so a shard never holds jobs of endpoints that belong to another. In a cluster, the
/// tag puts all keys of a shard on one node.
pub(super) struct ShardKeys {
    all: [String; 5],
    probe: String,
}

impl ShardKeys {
    pub(super) fn new(prefix: &str, shards: u32, shard: u32) -> Self {
        let name = |name: &str| format!("{{{prefix}:{LAYOUT}:{shards}:{shard}}}:{name}");
        // Scripts take the first four or five, so the order matters.
        Self {
            all: ["jobs", "held", "counts", "epoch", "identity"].map(name),
            probe: name("probe"),
        }
    }

    /// The keys: stream, held, counts, epoch, identity.
    pub(super) fn all(&self) -> &[String; 5] {
        &self.all
    }

    /// The stream of jobs. Each entry has one field, the encoded job.
    pub(super) fn stream(&self) -> &str {
        &self.all[0]
    }

    /// The hash of jobs that wait or are held, from the delivery's 16 bytes to its [`place`].
    pub(super) fn held(&self) -> &str {
        &self.all[1]
    }

    /// All keys, and the key on which the probe tries commands.
    pub(super) fn with_probe(&self) -> [&str; 6] {
        let [jobs, held, counts, epoch, identity] = self.all.each_ref().map(String::as_str);
        [jobs, held, counts, epoch, identity, &self.probe]
    }

    /// The hash of counts, of each endpoint, project and organization and in total. Its fields are
    /// below.
    pub(super) fn counts(&self) -> &str {
        &self.all[2]
    }
}

/// The channel on which changes of the configuration are announced.
pub(super) fn changes_channel(prefix: &str) -> String {
    format!("{prefix}:changes")
}

/// The field of the units of all jobs.
pub(super) const TOTAL_UNITS: &str = "t";

/// The field with the number of an endpoint's jobs. The scripts also build these names.
pub(super) fn endpoint_jobs(endpoint: EndpointId) -> [u8; 17] {
    tagged(b'n', endpoint.as_bytes())
}

/// The fields with the units of an endpoint's, a project's and an organization's jobs.
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

/// A job's place in the window: its generation and units (4 bytes each, big-endian), then 16 bytes
/// each of the endpoint, project and organization. This is all that is needed to free it.
pub(super) fn place(generation: u32, units: u32, who: &Recipient) -> [u8; 56] {
    let mut place = [0; 56];
    place[..4].copy_from_slice(&generation.to_be_bytes());
    place[4..8].copy_from_slice(&units.to_be_bytes());
    place[8..24].copy_from_slice(who.endpoint.as_bytes());
    place[24..40].copy_from_slice(who.project.as_bytes());
    place[40..].copy_from_slice(who.organization.as_bytes());
    place
}

/// Reads the generation from a place.
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
