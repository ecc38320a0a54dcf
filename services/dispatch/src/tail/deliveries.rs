//! Tails of changes of deliveries.

use std::collections::HashMap;

use async_trait::async_trait;
use outrider_model::{
    Attempt, AttemptId, Delivery, DeliveryId, DeliveryStatus, EndpointId, EventId, Principal,
    ProjectId, Result,
};
use outrider_store::{LogEntry, LogKind, Store};

use super::stream::{Item, Loaded, Source};

/// A filter of deliveries. All given conditions must hold.
pub struct DeliveryWish {
    pub endpoint: Option<EndpointId>,
    pub event: Option<EventId>,
    /// Empty means all.
    pub statuses: Vec<DeliveryStatus>,
}

impl DeliveryWish {
    fn wants(&self, delivery: &Delivery) -> bool {
        self.endpoint.is_none_or(|endpoint| endpoint == delivery.endpoint)
            && self.event.is_none_or(|event| event == delivery.event)
            && (self.statuses.is_empty() || self.statuses.contains(&delivery.status))
    }
}

/// The deliveries of a project that the principal reaches.
pub struct DeliveryUpdates {
    pub store: Store,
    pub principal: Principal,
    pub project: ProjectId,
    pub wish: DeliveryWish,
}

/// Returns about how many bytes an update uses in memory.
fn size_of(attempt: Option<&Attempt>) -> usize {
    /// Fields of fixed size and short fields.
    const FIXED: usize = 1024;
    let size = |attempt: &Attempt| {
        let headers = attempt
            .response_headers
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum::<usize>();
        headers
            + attempt.response_body.len()
            + attempt.error_message.as_ref().map_or(0, String::len)
    };
    FIXED + attempt.map_or(0, size)
}

#[async_trait]
impl Source for DeliveryUpdates {
    type Item = (Delivery, Option<Attempt>);
    const KIND: LogKind = LogKind::Deliveries;

    async fn load(&mut self, entries: &[LogEntry], limit: usize) -> Result<Loaded<Self::Item>> {
        let ids: Vec<DeliveryId> = entries.iter().map(|entry| DeliveryId(entry.id)).collect();
        let deliveries = self.store.deliveries_by_id(&self.principal, self.project, &ids).await?;
        let deliveries: HashMap<_, _> = deliveries
            .into_iter()
            .filter(|delivery| self.wish.wants(delivery))
            .map(|delivery| (delivery.id.0, delivery))
            .collect();
        let wanted = entries.iter().filter(|entry| deliveries.contains_key(&entry.id));
        let ids: Vec<AttemptId> = wanted.filter_map(|entry| entry.attempt).collect();
        let attempts = self.store.attempts_by_id(&self.principal, self.project, &ids).await?;
        let mut attempts: HashMap<AttemptId, Attempt> =
            attempts.into_iter().map(|attempt| (attempt.id, attempt)).collect();
        let (mut items, mut sum, mut taken, mut wants) = (Vec::new(), 0, 0, None);
        for entry in entries {
            if let Some(delivery) = deliveries.get(&entry.id) {
                let attempt = entry.attempt.and_then(|id| attempts.remove(&id));
                let bytes = size_of(attempt.as_ref());
                sum += bytes;
                if sum > limit {
                    wants = items.is_empty().then_some(bytes);
                    break;
                }
                items.push(Item { after: entry.next, what: (delivery.clone(), attempt), bytes });
            }
            taken += 1;
        }
        Ok(Loaded { items, taken, wants })
    }
}
