//! Tails of accepted events.

use std::{collections::VecDeque, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use outrider_model::{Error, Event, EventId, EventTypePattern, ProjectId, Result};
use outrider_shares::Holder;
use outrider_store::{Ledger, LogEntry, LogKind, Store};

use super::stream::{Item, Loaded, Source};

/// A filter of events.
pub struct EventWish {
    /// Empty means all.
    pub event_types: Vec<EventTypePattern>,
    pub with_payload: bool,
}

/// The events of a project.
pub struct AcceptedEvents {
    pub store: Store,
    pub ledger: Arc<dyn Ledger>,
    pub holder: Holder,
    pub project: ProjectId,
    pub wish: EventWish,
}

impl AcceptedEvents {
    fn wants(&self, event: &Event) -> bool {
        let patterns = &self.wish.event_types;
        patterns.is_empty() || patterns.iter().any(|pattern| pattern.matches(&event.event_type))
    }

    /// Returns about how many bytes an event uses in memory, with its payload if that is requested.
    fn size_of(&self, event: &Event) -> usize {
        /// Fields of fixed size and short fields.
        const FIXED: usize = 512;
        let maps = [&event.headers, &event.metadata].into_iter().flatten();
        let texts = maps.map(|(name, value)| name.len() + value.len()).sum::<usize>();
        FIXED + texts + if self.wish.with_payload { event.payload_size as usize } else { 0 }
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

    async fn load(&mut self, entries: &[LogEntry], limit: usize) -> Result<Loaded<Self::Item>> {
        let ids: Vec<EventId> = entries.iter().map(|entry| EventId(entry.id)).collect();
        let mut found: VecDeque<Event> =
            self.store.events_by_id(self.holder, self.project, &ids).await?.into();
        let (mut wanted, mut sum, mut taken, mut wants) = (Vec::new(), 0, 0, None);
        for entry in entries {
            // Keep the order of the entries. An event that has been removed is left out.
            let event = found
                .front()
                .is_some_and(|event| event.id.0 == entry.id)
                .then(|| found.pop_front())
                .flatten();
            if let Some(event) = event.filter(|event| self.wants(event)) {
                let bytes = self.size_of(&event);
                sum += bytes;
                if sum > limit {
                    wants = wanted.is_empty().then_some(bytes);
                    break;
                }
                wanted.push((entry.next, event, bytes));
            }
            taken += 1;
        }
        let ids: Vec<EventId> = wanted.iter().map(|(_, event, _)| event.id).collect();
        let payloads = self.payloads(&ids).await?;
        let items = wanted.into_iter().zip(payloads);
        let items = items
            .map(|((after, event, bytes), payload)| Item { after, what: (event, payload), bytes })
            .collect();
        Ok(Loaded { items, taken, wants })
    }
}
