//! Which shard an endpoint's jobs are in, and what shards have in common in both backends.

use outrider_model::EndpointId;

/// Epochs stay below this, so that they are exact in every place that counts in floating point.
const EPOCH_BELOW: i64 = 1 << 53;

/// The shard of an endpoint, the same in every process and version: FNV-1a over the id's bytes,
/// which spreads ids that were given by the caller (imports) as well as ours.
pub(crate) fn shard_of(endpoint: EndpointId, shards: u32) -> u32 {
    let hash = endpoint.as_bytes().iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    // The low bits of FNV depend on few bits of the input; the high half is folded in.
    let folded = hash ^ (hash >> 32);
    u32::try_from(folded % u64::from(shards.max(1))).unwrap_or(0)
}

/// A new epoch: from 1 to 2^53 - 1, not guessable from the last.
pub(crate) fn random_epoch() -> i64 {
    rand::random_range(1..EPOCH_BELOW)
}

#[cfg(test)]
mod tests {
    use outrider_model::Timestamp;

    use super::*;

    #[test]
    fn shards_are_stable_and_even() {
        let known = EndpointId::new(Timestamp(1_700_000_000_000_000), 42);
        // Processes of different versions must agree: a change of this number is a change of the
        // layout in Redis.
        assert_eq!(shard_of(known, 1), 0);
        assert_eq!(shard_of(known, 16), shard_of(known, 16));
        let mut counts = [0_u32; 8];
        for number in 0..8_000_u64 {
            // Ids that differ in a few low bits only.
            let endpoint = EndpointId::new(Timestamp(1_700_000_000_000_000), number);
            counts[shard_of(endpoint, 8) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (800..1_200).contains(count)), "{counts:?}");
    }

    #[test]
    fn epochs_are_positive_and_exact_in_floating_point() {
        for _ in 0..1_000 {
            let epoch = random_epoch();
            assert!(epoch > 0 && epoch < EPOCH_BELOW);
        }
    }
}
