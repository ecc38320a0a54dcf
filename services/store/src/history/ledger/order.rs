//! The order in which the reports of a batch are applied.

use std::collections::HashMap;

use outrider_model::{DeliveryId, DeliveryStatus, Verdict};

use crate::ledger::Settled;

/// Splits a batch into rounds with at most one report of each delivery, sorted by delivery, so that
/// rows are always locked in the same order. Of several reports of a delivery, success comes first,
/// because it holds whatever else was reported.
pub(super) fn rounds(batch: &[Settled]) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..batch.len()).collect();
    order.sort_by_key(|index| (batch[*index].delivery, !is_success(batch[*index].verdict)));
    let mut seen: HashMap<DeliveryId, usize> = HashMap::with_capacity(batch.len());
    let mut rounds: Vec<Vec<usize>> = Vec::new();
    for index in order {
        let nth = seen.entry(batch[index].delivery).or_default();
        if rounds.len() <= *nth {
            rounds.push(Vec::new());
        }
        rounds[*nth].push(index);
        *nth += 1;
    }
    rounds
}

fn is_success(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::End(DeliveryStatus::Delivered, _))
}
