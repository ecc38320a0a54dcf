//! The shard of an endpoint's jobs, and what shards of both backends have in common.

use outrider_model::EndpointId;

/// Epochs are below this, so they are exact wherever numbers are floating point.
const EPOCH_BELOW: i64 = 1 << 53;

/// Returns the shard of an endpoint, which is the same in every process and version: FNV-1a over
/// the id's bytes. This spreads ids that callers chose (imports) as well as generated ones.
pub(crate) fn shard_of(endpoint: EndpointId, shards: u32) -> u32 {
    let hash = endpoint.as_bytes().iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    // The low bits of FNV depend on few bits of the input, so the high half is folded in.
    let folded = hash ^ (hash >> 32);
    u32::try_from(folded % u64::from(shards.max(1))).unwrap_or(0)
}

/// Returns a new epoch, from 1 to 2^53 - 1, which cannot be guessed from the last.
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
        // Processes of different versions must agree. A change of this number changes the layout in
        // Redis.
        assert_eq!(shard_of(known, 1), 0);
        assert_eq!(shard_of(known, 16), shard_of(known, 16));
        let mut counts = [0_u32; 8];
        for number in 0..8_000_u64 {
            // IDs that differ in a few low bits only.
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
