//! Fingerprints distinguish a repeated publish from a different one with the same idempotency key.

use std::collections::BTreeMap;

use outrider_proto::internal::AcceptEvent;
use ring::digest::{Context, SHA256};

/// Returns the SHA-256 hash of everything that the producer gave. Each part is preceded by its
/// length, so that no two events yield the same bytes.
pub fn fingerprint(event: &AcceptEvent) -> Vec<u8> {
    let mut context = Context::new(&SHA256);
    let mut part = |bytes: &[u8]| {
        context.update(&(bytes.len() as u64).to_be_bytes());
        context.update(bytes);
    };
    part(event.event_type.as_bytes());
    part(event.content_type.as_bytes());
    part(&event.payload);
    part(event.ordering_key.as_bytes());
    for map in [&event.headers, &event.metadata] {
        part(&(map.len() as u64).to_be_bytes());
        for (name, value) in map.iter().collect::<BTreeMap<_, _>>() {
            part(name.as_bytes());
            part(value.as_bytes());
        }
    }
    let deliver_at = event.deliver_at.unwrap_or_default();
    part(&deliver_at.seconds.to_be_bytes());
    part(&deliver_at.nanos.to_be_bytes());
    context.finish().as_ref().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differs_with_every_part_and_not_with_the_order_of_maps() {
        let base =
            AcceptEvent { event_type: "a".into(), payload: "{}".into(), ..Default::default() };
        let map = |entries: &[(&str, &str)]| {
            entries.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
        };
        let others = [
            AcceptEvent { event_type: "b".into(), ..base.clone() },
            AcceptEvent { payload: "{ }".into(), ..base.clone() },
            AcceptEvent { content_type: "{}".into(), payload: "".into(), ..base.clone() },
            AcceptEvent { ordering_key: "k".into(), ..base.clone() },
            AcceptEvent { headers: map(&[("a", "b")]), ..base.clone() },
            AcceptEvent { metadata: map(&[("a", "b")]), ..base.clone() },
            AcceptEvent {
                deliver_at: Some(prost_types::Timestamp { seconds: 1, nanos: 0 }),
                ..base.clone()
            },
        ];
        for (index, other) in others.iter().enumerate() {
            assert_ne!(fingerprint(&base), fingerprint(other), "{index}");
        }
        let forth = AcceptEvent { headers: map(&[("a", "1"), ("b", "2")]), ..base.clone() };
        let back = AcceptEvent { headers: map(&[("b", "2"), ("a", "1")]), ..base.clone() };
        assert_eq!(fingerprint(&forth), fingerprint(&back));
        assert_eq!(
            fingerprint(&AcceptEvent { project_id: "x".into(), actor: "y".into(), ..base.clone() }),
            fingerprint(&base)
        );
    }
}
