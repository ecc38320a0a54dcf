//! Events on the wire between ingest and dispatch.

use outrider_model::{
    AcceptedEvent, AdmittedEvent, Error, Idempotency, Origin, Result, Trace, UsedKey,
};
use outrider_proto::internal::{self, AcceptEvent, AcceptEventResult, FindEvent, FindEventResult};

use crate::wire::{
    convert::{parse_id, parse_timestamp, timestamp},
    status,
};

pub(super) fn from_admitted(event: AdmittedEvent) -> AcceptEvent {
    let Origin::Api { actor } = event.origin;
    let (idempotency_key, fingerprint) = event
        .idempotency
        .map(|given| (given.key, given.fingerprint.to_vec().into()))
        .unwrap_or_default();
    let (traceparent, tracestate) =
        event.trace.map(|trace| (trace.parent, trace.state)).unwrap_or_default();
    AcceptEvent {
        project_id: event.project.to_string(),
        organization_id: event.organization.to_string(),
        actor,
        event_type: event.event_type,
        payload: event.payload,
        content_type: event.content_type,
        idempotency_key,
        fingerprint,
        headers: event.headers.into_iter().collect(),
        metadata: event.metadata.into_iter().collect(),
        ordering_key: event.ordering_key.unwrap_or_default(),
        deliver_at: event.deliver_at.map(timestamp),
        traceparent,
        tracestate,
    }
}

pub(super) fn to_admitted(event: AcceptEvent) -> Result<AdmittedEvent> {
    let deliver_at = event.deliver_at.as_ref().map(|at| parse_timestamp("deliver_at", at));
    let idempotency = if event.idempotency_key.is_empty() {
        None
    } else {
        let fingerprint = fingerprint(&event.fingerprint)?;
        Some(Idempotency { key: event.idempotency_key, fingerprint })
    };
    let trace = Some(Trace { parent: event.traceparent, state: event.tracestate });
    Ok(AdmittedEvent {
        organization: parse_id("organization_id", &event.organization_id)?,
        project: parse_id("project_id", &event.project_id)?,
        event_type: event.event_type,
        content_type: event.content_type,
        payload: event.payload,
        idempotency,
        headers: event.headers.into_iter().collect(),
        metadata: event.metadata.into_iter().collect(),
        ordering_key: Some(event.ordering_key).filter(|key| !key.is_empty()),
        deliver_at: deliver_at.transpose()?,
        origin: Origin::Api { actor: event.actor },
        trace: trace.filter(|trace| !trace.parent.is_empty()),
    })
}

pub(super) fn from_result(result: Result<AcceptedEvent>) -> AcceptEventResult {
    use internal::accept_event_result::Result as Wire;
    let result = match result {
        Ok(accepted) => Wire::Accepted(from_accepted(accepted)),
        Err(error) => Wire::Error(status::to_message(error)),
    };
    AcceptEventResult { result: Some(result) }
}

pub(super) fn to_result(result: AcceptEventResult) -> Result<AcceptedEvent> {
    use internal::accept_event_result::Result as Wire;
    match result.result {
        Some(Wire::Accepted(accepted)) => to_accepted(&accepted),
        Some(Wire::Error(error)) => Err(status::from_message(&error)),
        None => Err(Error::internal("dispatch answered without a result")),
    }
}

pub(super) fn from_used_key(used: UsedKey) -> FindEvent {
    FindEvent {
        project_id: used.project.to_string(),
        idempotency_key: used.key,
        fingerprint: used.fingerprint.to_vec().into(),
    }
}

pub(super) fn to_used_key(event: FindEvent) -> Result<UsedKey> {
    Ok(UsedKey {
        project: parse_id("project_id", &event.project_id)?,
        fingerprint: fingerprint(&event.fingerprint)?,
        key: event.idempotency_key,
    })
}

pub(super) fn from_found(found: Option<AcceptedEvent>) -> FindEventResult {
    FindEventResult { event: found.map(from_accepted) }
}

pub(super) fn to_found(result: FindEventResult) -> Result<Option<AcceptedEvent>> {
    result.event.as_ref().map(to_accepted).transpose()
}

fn from_accepted(accepted: AcceptedEvent) -> internal::AcceptedEvent {
    internal::AcceptedEvent {
        event_id: accepted.id.to_string(),
        duplicate: accepted.duplicate,
        delivery_count: accepted.delivery_count,
        create_time: Some(timestamp(accepted.created_at)),
    }
}

fn to_accepted(accepted: &internal::AcceptedEvent) -> Result<AcceptedEvent> {
    let malformed = |_| Error::internal("dispatch answered with a malformed event");
    let created_at = accepted.create_time.unwrap_or_default();
    Ok(AcceptedEvent {
        id: parse_id("event_id", &accepted.event_id).map_err(malformed)?,
        duplicate: accepted.duplicate,
        delivery_count: accepted.delivery_count,
        created_at: parse_timestamp("create_time", &created_at).map_err(malformed)?,
    })
}

fn fingerprint(bytes: &[u8]) -> Result<[u8; 32]> {
    bytes.try_into().map_err(|_| Error::field("fingerprint", "must have 32 bytes"))
}

#[cfg(test)]
pub(crate) mod tests {
    use outrider_model::{EventId, OrganizationId, ProjectId, Reason, Timestamp};

    use super::*;

    /// An event with a value in every field.
    pub(crate) fn admitted() -> AdmittedEvent {
        let map = |name: &str| [(name.to_owned(), "value".to_owned())].into();
        AdmittedEvent {
            organization: OrganizationId::new(Timestamp(1), 1),
            project: ProjectId::new(Timestamp(1), 2),
            event_type: "a.b".to_owned(),
            content_type: "text/plain".to_owned(),
            payload: "payload".into(),
            idempotency: Some(Idempotency { key: "key".to_owned(), fingerprint: [7; 32] }),
            headers: map("header"),
            metadata: map("note"),
            ordering_key: Some("order".to_owned()),
            deliver_at: Some(Timestamp(1_700_000_000_000_001)),
            origin: Origin::Api { actor: "key_x".to_owned() },
            trace: Some(Trace { parent: "00-a".to_owned(), state: "b=c".to_owned() }),
        }
    }

    pub(crate) fn accepted() -> AcceptedEvent {
        AcceptedEvent {
            id: EventId::new(Timestamp(1), 3),
            duplicate: true,
            delivery_count: 4,
            created_at: Timestamp(1_700_000_000_000_001),
        }
    }

    #[test]
    fn everything_arrives_as_it_was_sent() {
        let bare = AdmittedEvent {
            idempotency: None,
            ordering_key: None,
            deliver_at: None,
            trace: None,
            ..admitted()
        };
        for event in [admitted(), bare] {
            assert_eq!(to_admitted(from_admitted(event.clone())), Ok(event));
        }
        let used =
            UsedKey { project: admitted().project, key: "key".to_owned(), fingerprint: [1; 32] };
        assert_eq!(to_used_key(from_used_key(used.clone())), Ok(used));
        assert_eq!(to_found(from_found(Some(accepted()))), Ok(Some(accepted())));
        assert_eq!(to_found(from_found(None)), Ok(None));
        assert_eq!(to_result(from_result(Ok(accepted()))), Ok(accepted()));
        let refused = to_result(from_result(Err(Error::field("payload", "is wrong"))));
        assert_eq!(refused, Err(Error::field("payload", "is wrong")));
    }

    #[test]
    fn malformed_messages_are_refused_by_their_field() {
        let good = || from_admitted(admitted());
        for (field, wrong) in [
            ("organization_id", AcceptEvent { organization_id: "org_".to_owned(), ..good() }),
            ("project_id", AcceptEvent { project_id: String::new(), ..good() }),
            ("fingerprint", AcceptEvent { fingerprint: "short".into(), ..good() }),
            (
                "deliver_at",
                AcceptEvent {
                    deliver_at: Some(prost_types::Timestamp { seconds: 1, nanos: -1 }),
                    ..good()
                },
            ),
        ] {
            assert_eq!(to_admitted(wrong).unwrap_err().violations[0].field, field);
        }
        let nothing = to_result(AcceptEventResult { result: None });
        assert_eq!(nothing.unwrap_err().reason, Reason::Internal);
        let accepted = internal::AcceptedEvent::default();
        assert_eq!(to_accepted(&accepted).unwrap_err().reason, Reason::Internal);
    }
}
