//! Fingerprints distinguish a repeated publish from a different one with the same idempotency key.

use outrider_model::AdmittedEvent;
use ring::digest::{Context, SHA256};

/// Returns the SHA-256 hash of everything that the producer gave. Each part is preceded by its
/// length, so that no two events yield the same bytes. `deliver_at` is the time as it was given,
/// which may be finer than what is kept of it.
pub fn fingerprint(event: &AdmittedEvent, deliver_at: Option<&prost_types::Timestamp>) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    let mut part = |bytes: &[u8]| {
        context.update(&(bytes.len() as u64).to_be_bytes());
        context.update(bytes);
    };
    part(event.event_type.as_bytes());
    part(event.content_type.as_bytes());
    part(&event.payload);
    part(event.ordering_key.as_deref().unwrap_or_default().as_bytes());
    for map in [&event.headers, &event.metadata] {
        part(&(map.len() as u64).to_be_bytes());
        for (name, value) in map {
            part(name.as_bytes());
            part(value.as_bytes());
        }
    }
    let deliver_at = deliver_at.copied().unwrap_or_default();
    part(&deliver_at.seconds.to_be_bytes());
    part(&deliver_at.nanos.to_be_bytes());
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use outrider_model::{OrganizationId, Origin, ProjectId, Timestamp, Trace};

    use super::*;

    #[test]
    fn differs_with_every_part_that_the_producer_gave() {
        let base = AdmittedEvent {
            organization: OrganizationId::new(Timestamp(1), 1),
            project: ProjectId::new(Timestamp(1), 2),
            event_type: "a".into(),
            content_type: String::new(),
            payload: "{}".into(),
            idempotency: None,
            headers: [].into(),
            metadata: [].into(),
            ordering_key: None,
            deliver_at: None,
            origin: Origin::Api { actor: String::new() },
            trace: None,
        };
        let map = || [("a".to_owned(), "b".to_owned())].into();
        let others = [
            AdmittedEvent { event_type: "b".into(), ..base.clone() },
            AdmittedEvent { payload: "{ }".into(), ..base.clone() },
            AdmittedEvent { content_type: "{}".into(), payload: "".into(), ..base.clone() },
            AdmittedEvent { ordering_key: Some("k".into()), ..base.clone() },
            AdmittedEvent { headers: map(), ..base.clone() },
            AdmittedEvent { metadata: map(), ..base.clone() },
        ];
        for (index, other) in others.iter().enumerate() {
            assert_ne!(fingerprint(&base, None), fingerprint(other, None), "{index}");
        }
        let at = prost_types::Timestamp { seconds: 1, nanos: 0 };
        assert_ne!(fingerprint(&base, None), fingerprint(&base, Some(&at)));
        let traced = AdmittedEvent {
            project: ProjectId::new(Timestamp(1), 3),
            origin: Origin::Api { actor: "y".into() },
            trace: Some(Trace { parent: "p".into(), state: "s".into() }),
            ..base.clone()
        };
        assert_eq!(fingerprint(&traced, None), fingerprint(&base, None));
    }
}
