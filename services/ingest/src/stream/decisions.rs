//! What became of the events of a stream, in their order: from single outcomes to acknowledgements
//! of all up to one.

use std::collections::VecDeque;

use outrider_model::Error;
use outrider_proto::ingest::{
    PublishEventResponse, StreamAck, StreamEventsResponse, StreamRejection,
    stream_events_response::Kind,
};
use outrider_rpc::status;

/// An event that is read and not acknowledged.
struct Slot {
    /// Its own bytes, and those of the error when it is refused.
    bytes: u64,
    /// What it holds of the room.
    room: usize,
    outcome: Outcome,
}

enum Outcome {
    Waiting,
    Accepted { duplicate: bool, warned: bool, deliveries: u32 },
    Refused(Error),
}

/// The events that are read and not acknowledged, and the acknowledgement in the making.
#[derive(Default)]
pub struct Decisions {
    slots: VecDeque<Slot>,
    /// The sequence number of the first slot.
    first: u64,
    /// The slot whose outcome comes next.
    undecided: usize,
    bytes: u64,
    /// Those of errors that are not told.
    error_bytes: u64,
    /// Covers what was taken out and not told yet.
    ack: StreamAck,
    told: u64,
}

impl Decisions {
    /// How many events.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Their bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The bytes of the errors among them.
    pub fn error_bytes(&self) -> u64 {
        self.error_bytes
    }

    /// An event was read, with the next sequence number, and is on its way; the first one begins
    /// the count.
    pub fn wait(&mut self, sequence: u64, bytes: u64, room: usize) {
        self.push(sequence, Slot { bytes, room, outcome: Outcome::Waiting });
    }

    /// An event was read and is refused at once.
    pub fn refuse(&mut self, sequence: u64, error: Error) {
        self.error_bytes += size_of(&error);
        self.push(
            sequence,
            Slot { bytes: size_of(&error), room: 0, outcome: Outcome::Refused(error) },
        );
        self.skip_decided();
    }

    fn push(&mut self, sequence: u64, slot: Slot) {
        if self.slots.is_empty() {
            self.first = sequence;
        }
        self.bytes += slot.bytes;
        self.slots.push_back(slot);
    }

    /// The sequence number of the event whose outcome comes next.
    pub fn next_undecided(&self) -> u64 {
        self.first + self.undecided as u64
    }

    /// The outcome of the first event on its way; gives the room that it held: its payload is gone,
    /// whether the client hears of it or not.
    pub fn decide(&mut self, outcome: Result<PublishEventResponse, Error>) -> usize {
        let Some(slot) = self.slots.get_mut(self.undecided) else { return 0 };
        let freed = std::mem::take(&mut slot.room);
        slot.outcome = match outcome {
            Ok(accepted) => Outcome::Accepted {
                duplicate: accepted.duplicate,
                warned: !accepted.warnings.is_empty(),
                deliveries: accepted.delivery_count,
            },
            Err(error) => {
                self.bytes += size_of(&error);
                self.error_bytes += size_of(&error);
                slot.bytes += size_of(&error);
                Outcome::Refused(error)
            }
        };
        self.skip_decided();
        freed
    }

    fn skip_decided(&mut self) {
        while self
            .slots
            .get(self.undecided)
            .is_some_and(|slot| !matches!(slot.outcome, Outcome::Waiting))
        {
            self.undecided += 1;
        }
    }

    /// Whether there is something to tell.
    pub fn has_message(&self) -> bool {
        self.undecided > 0 || self.ack.sequence > self.told
    }

    /// The next message: a rejection, or one acknowledgement for all that is decided in a row.
    pub fn message(&mut self) -> Option<StreamEventsResponse> {
        while self.undecided > 0 {
            let Some(slot) = self.slots.pop_front() else { break };
            self.undecided -= 1;
            self.bytes -= slot.bytes;
            let sequence = self.first;
            self.first += 1;
            self.ack.sequence = sequence;
            match slot.outcome {
                Outcome::Accepted { duplicate, warned, deliveries } => {
                    self.ack.accepted_count += 1;
                    self.ack.duplicate_count += u32::from(duplicate);
                    self.ack.warned_count += u32::from(warned);
                    self.ack.delivery_count += u64::from(deliveries);
                }
                Outcome::Refused(error) => {
                    self.error_bytes -= size_of(&error);
                    let rejection =
                        StreamRejection { sequence, error: Some(status::to_message(error)) };
                    return Some(StreamEventsResponse { kind: Some(Kind::Rejection(rejection)) });
                }
                Outcome::Waiting => {}
            }
        }
        if self.ack.sequence <= self.told {
            return None;
        }
        self.told = self.ack.sequence;
        let ack = std::mem::take(&mut self.ack);
        Some(StreamEventsResponse { kind: Some(Kind::Ack(ack)) })
    }
}

fn size_of(error: &Error) -> u64 {
    let violations: usize = error
        .violations
        .iter()
        .map(|violation| violation.field.len() + violation.description.len())
        .sum();
    (error.message.len() + violations) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(deliveries: u32, duplicate: bool) -> Result<PublishEventResponse, Error> {
        Ok(PublishEventResponse {
            delivery_count: deliveries,
            duplicate,
            ..PublishEventResponse::default()
        })
    }

    fn told(decisions: &mut Decisions) -> Vec<String> {
        let mut told = Vec::new();
        while decisions.has_message() {
            let Some(message) = decisions.message() else {
                panic!("it said that there is a message")
            };
            told.push(match message.kind.unwrap() {
                Kind::Ack(ack) => {
                    format!(
                        "ack {} {}+{} {}",
                        ack.sequence, ack.accepted_count, ack.duplicate_count, ack.delivery_count
                    )
                }
                Kind::Rejection(rejection) => format!("no {}", rejection.sequence),
                Kind::Opened(_) => unreachable!(),
            });
        }
        assert!(decisions.message().is_none());
        told
    }

    #[test]
    fn outcomes_are_told_in_order_and_together() {
        let mut decisions = Decisions::default();
        for sequence in 7..10 {
            decisions.wait(sequence, 100, 1);
        }
        decisions.refuse(10, Error::field("a", "b"));
        decisions.wait(11, 100, 1);
        assert!(told(&mut decisions).is_empty());
        assert_eq!((decisions.len(), decisions.next_undecided()), (5, 7));
        decisions.decide(accepted(2, false));
        decisions.decide(accepted(3, true));
        assert_eq!(told(&mut decisions), ["ack 8 2+1 5"]);
        decisions.decide(Err(Error::internal("refused")));
        assert_eq!(decisions.next_undecided(), 11);
        assert_eq!(told(&mut decisions), ["no 9", "no 10", "ack 10 0+0 0"]);
        decisions.decide(accepted(0, false));
        assert_eq!(told(&mut decisions), ["ack 11 1+0 0"]);
        assert_eq!((decisions.len(), decisions.bytes()), (0, 0));
    }

    #[test]
    fn room_is_free_when_it_is_decided_and_the_window_when_it_is_told() {
        let mut decisions = Decisions::default();
        decisions.wait(1, 10, 10);
        decisions.wait(2, 20, 20);
        assert_eq!(decisions.decide(accepted(0, false)), 10);
        assert_eq!(decisions.bytes(), 30);
        decisions.message().unwrap();
        assert_eq!(decisions.bytes(), 20);
        assert_eq!(decisions.decide(Err(Error::internal("no"))), 20);
        assert_eq!((decisions.bytes(), decisions.error_bytes()), (22, 2));
        decisions.message().unwrap();
        assert!(decisions.has_message(), "the acknowledgement follows the rejection");
        decisions.message().unwrap();
        assert_eq!((decisions.bytes(), decisions.error_bytes()), (0, 0));
    }
}
