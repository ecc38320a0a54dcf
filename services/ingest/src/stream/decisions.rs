//! The outcomes of the events of a stream, in order: turns single outcomes into acknowledgments of
//! all events up to one.

use std::collections::VecDeque;

use outrider_model::Error;
use outrider_proto::ingest::{
    PublishEventResponse, StreamAck, StreamEventsResponse, StreamRejection,
    stream_events_response::Kind,
};
use outrider_rpc::status;

/// An event that is read and not acknowledged.
struct Entry {
    /// Its own bytes, plus those of the error if it is refused.
    bytes: u64,
    /// Its part of the buffer.
    buffered: usize,
    outcome: Outcome,
}

enum Outcome {
    Waiting,
    Accepted { duplicate: bool, warned: bool, deliveries: u32 },
    Refused(Error),
}

/// The events that are read and not acknowledged, and the next acknowledgment.
#[derive(Default)]
pub struct Decisions {
    entries: VecDeque<Entry>,
    /// Sequence number of the first entry.
    first: u64,
    /// Index of the entry whose outcome comes next.
    undecided: usize,
    bytes: u64,
    /// Bytes of the errors that are not sent.
    error_bytes: u64,
    /// Covers the entries that were removed but not acknowledged.
    ack: StreamAck,
    /// Sequence number of the last acknowledgment.
    acked: u64,
}

impl Decisions {
    /// Returns the number of events.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns their bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns the bytes of the errors among them.
    pub fn error_bytes(&self) -> u64 {
        self.error_bytes
    }

    /// Adds an event that was read, with the next sequence number, and is on its way. The first
    /// event starts the count.
    pub fn wait(&mut self, sequence: u64, bytes: u64, buffered: usize) {
        self.push(sequence, Entry { bytes, buffered, outcome: Outcome::Waiting });
    }

    /// Adds an event that was read and is refused at once.
    pub fn refuse(&mut self, sequence: u64, error: Error) {
        self.error_bytes += size_of(&error);
        self.push(
            sequence,
            Entry { bytes: size_of(&error), buffered: 0, outcome: Outcome::Refused(error) },
        );
        self.skip_decided();
    }

    fn push(&mut self, sequence: u64, entry: Entry) {
        if self.entries.is_empty() {
            self.first = sequence;
        }
        self.bytes += entry.bytes;
        self.entries.push_back(entry);
    }

    /// Returns the sequence number of the event whose outcome comes next.
    pub fn next_undecided(&self) -> u64 {
        self.first + self.undecided as u64
    }

    /// Sets the outcome of the first event on its way. Returns its part of the buffer, which is
    /// free now: its payload is dropped, whether or not the client learns of the outcome.
    pub fn decide(&mut self, outcome: Result<PublishEventResponse, Error>) -> usize {
        let Some(entry) = self.entries.get_mut(self.undecided) else { return 0 };
        let freed = std::mem::take(&mut entry.buffered);
        entry.outcome = match outcome {
            Ok(accepted) => Outcome::Accepted {
                duplicate: accepted.duplicate,
                warned: !accepted.warnings.is_empty(),
                deliveries: accepted.delivery_count,
            },
            Err(error) => {
                self.bytes += size_of(&error);
                self.error_bytes += size_of(&error);
                entry.bytes += size_of(&error);
                Outcome::Refused(error)
            }
        };
        self.skip_decided();
        freed
    }

    fn skip_decided(&mut self) {
        while self
            .entries
            .get(self.undecided)
            .is_some_and(|entry| !matches!(entry.outcome, Outcome::Waiting))
        {
            self.undecided += 1;
        }
    }

    /// Whether there is a message to send.
    pub fn has_message(&self) -> bool {
        self.undecided > 0 || self.ack.sequence > self.acked
    }

    /// Returns the next message: a rejection, or one acknowledgment for all consecutive accepted
    /// events.
    pub fn message(&mut self) -> Option<StreamEventsResponse> {
        while self.undecided > 0 {
            let Some(entry) = self.entries.pop_front() else { break };
            self.undecided -= 1;
            self.bytes -= entry.bytes;
            let sequence = self.first;
            self.first += 1;
            self.ack.sequence = sequence;
            match entry.outcome {
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
        if self.ack.sequence <= self.acked {
            return None;
        }
        self.acked = self.ack.sequence;
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

    fn messages(decisions: &mut Decisions) -> Vec<String> {
        let mut messages = Vec::new();
        while decisions.has_message() {
            let Some(message) = decisions.message() else { panic!("there must be a message") };
            messages.push(match message.kind.unwrap() {
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
        messages
    }

    #[test]
    fn outcomes_are_told_in_order_and_together() {
        let mut decisions = Decisions::default();
        for sequence in 7..10 {
            decisions.wait(sequence, 100, 1);
        }
        decisions.refuse(10, Error::field("a", "b"));
        decisions.wait(11, 100, 1);
        assert!(messages(&mut decisions).is_empty());
        assert_eq!((decisions.len(), decisions.next_undecided()), (5, 7));
        decisions.decide(accepted(2, false));
        decisions.decide(accepted(3, true));
        assert_eq!(messages(&mut decisions), ["ack 8 2+1 5"]);
        decisions.decide(Err(Error::internal("refused")));
        assert_eq!(decisions.next_undecided(), 11);
        assert_eq!(messages(&mut decisions), ["no 9", "no 10", "ack 10 0+0 0"]);
        decisions.decide(accepted(0, false));
        assert_eq!(messages(&mut decisions), ["ack 11 1+0 0"]);
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
        assert!(decisions.has_message(), "the acknowledgment follows the rejection");
        decisions.message().unwrap();
        assert_eq!((decisions.bytes(), decisions.error_bytes()), (0, 0));
    }
}
