//! Events as they are accepted.

use std::{collections::VecDeque, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use outrider_model::{Error, Event, EventId, EventTypePattern, ProjectId, Result};
use outrider_store::{Ledger, LogEntry, LogKind, Store};

use super::stream::{Loaded, Source};

/// Payload bytes looked up at once; a single larger one comes alone.
const PAYLOAD_BYTES: usize = 1024 * 1024;

/// Which events are wanted.
pub struct EventWish {
    /// Empty for all.
    pub event_types: Vec<EventTypePattern>,
    pub with_payload: bool,
}

/// The events of a project.
pub struct AcceptedEvents {
    pub store: Store,
    pub ledger: Arc<dyn Ledger>,
    pub project: ProjectId,
    pub wish: EventWish,
}

impl AcceptedEvents {
    fn wants(&self, event: &Event) -> bool {
        let patterns = &self.wish.event_types;
        patterns.is_empty() || patterns.iter().any(|pattern| pattern.matches(&event.event_type))
    }

    async fn payloads(&self, events: &[EventId]) -> Result<VecDeque<Option<Bytes>>> {
        if !self.wish.with_payload {
            return Ok(vec![None; events.len()].into());
        }
        self.ledger.payloads(events).await.map(Into::into).map_err(|error| {
            tracing::warn!(%error, "payloads were not read");
            Error::unavailable("the database does not answer")
        })
    }
}

#[async_trait]
impl Source for AcceptedEvents {
    type Item = (Event, Option<Bytes>);
    const KIND: LogKind = LogKind::Events;

    async fn load(&mut self, entries: &[LogEntry]) -> Result<Loaded<Self::Item>> {
        let ids: Vec<EventId> = entries.iter().map(|entry| EventId(entry.id)).collect();
        let mut found: VecDeque<Event> = self.store.events_by_id(self.project, &ids).await?.into();
        let (mut wanted, mut bytes, mut taken) = (Vec::new(), 0, 0);
        for entry in entries {
            // They come in the order of the entries; one that is gone by now is left out.
            let event = found.front().is_some_and(|event| event.id.0 == entry.id).then(|| found.pop_front()).flatten();
            if let Some(event) = event.filter(|event| self.wants(event)) {
                bytes += if self.wish.with_payload { event.payload_size as usize } else { 0 };
                if bytes > PAYLOAD_BYTES && !wanted.is_empty() {
                    break;
                }
                wanted.push((entry.next, event));
            }
            taken += 1;
        }
        let ids: Vec<EventId> = wanted.iter().map(|(_, event)| event.id).collect();
        let payloads = self.payloads(&ids).await?;
        let items = wanted.into_iter().zip(payloads).map(|((next, event), payload)| (next, (event, payload))).collect();
        Ok(Loaded { items, taken })
    }
}
