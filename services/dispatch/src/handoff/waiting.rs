//! Jobs between their commit and the queue, and the room that they use.

use std::collections::HashMap;

use outrider_model::{DeliveryId, EndpointId, FairShares, Recipient};
use outrider_queue::NewJob;

use crate::fair_queue::{FairQueue, Owner};

/// Returns the room that a waiting job uses, in KiB: its payload, its headers, and 1 KiB for the
/// rest.
pub fn kib_of(new: &NewJob) -> u32 {
    u32::try_from(new.job.bytes() / 1024 + 1).unwrap_or(u32::MAX)
}

pub fn owner(new: &NewJob) -> Owner {
    Owner { organization: new.job.recipient.organization, project: new.job.recipient.project }
}

/// Jobs that the queue did not take and that must be recorded.
#[derive(Default)]
pub struct Leftover {
    /// Marks to take back.
    pub refused: Vec<(DeliveryId, u32)>,
    /// Deliveries to check soon.
    pub present: Vec<(DeliveryId, u32)>,
    /// Endpoints with a full window.
    pub full: Vec<EndpointId>,
    /// The room that the jobs keep until then.
    pub room: Room,
}

impl Leftover {
    pub fn of(refused: &[&NewJob], present: &[&NewJob], full: Vec<EndpointId>, room: Room) -> Self {
        let names = |jobs: &[&NewJob]| {
            jobs.iter().map(|job| (job.job.delivery, job.job.generation)).collect()
        };
        Self { refused: names(refused), present: names(present), full, room }
    }

    pub fn is_empty(&self) -> bool {
        self.refused.is_empty() && self.present.is_empty()
    }

    pub fn and(mut self, other: Self) -> Self {
        self.refused.extend(other.refused);
        self.present.extend(other.present);
        self.full.extend(other.full);
        self.room.extend(other.room);
        self
    }
}

/// Jobs between their commit and the queue.
pub struct OnTheirWay {
    /// Waiting jobs, in turns, so the jobs of one project do not wait for those of another.
    pub line: FairQueue<Vec<NewJob>>,
    /// The KiB of jobs that wait, are being queued, or must be recorded.
    pub room: FairShares,
}

/// KiB of room, by recipient.
pub type Room = Vec<(Recipient, u32)>;

impl OnTheirWay {
    /// Returns the KiB that a job uses here. A job that is larger than any share counts as the
    /// largest share.
    pub fn kib_of(&self, job: &NewJob) -> u32 {
        kib_of(job).min(self.room.largest_amount())
    }

    pub fn room_of<'j>(&self, jobs: impl IntoIterator<Item = &'j NewJob>) -> Room {
        jobs.into_iter().map(|job| (job.job.recipient, self.kib_of(job))).collect()
    }

    /// Gives back the room in `taken`, except for the part in `kept`.
    pub fn give_back(&mut self, taken: &Room, kept: &Room) {
        let mut left: HashMap<EndpointId, u32> = HashMap::new();
        for (who, kib) in kept {
            *left.entry(who.endpoint).or_default() += kib;
        }
        for (who, kib) in taken {
            let keep = left.get_mut(&who.endpoint).map_or(0, |left| {
                let keep = (*left).min(*kib);
                *left -= keep;
                keep
            });
            self.room.give_back(who, kib - keep);
        }
    }
}
