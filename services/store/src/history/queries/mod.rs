//! Queries of callers about history: events, deliveries and attempts, one by one and in pages. They
//! only read.
//!
//! Lists are newest first: events and deliveries by the time in their ids, which is the time of the
//! event or the replay, and attempts by their start. Every page is a range of an index
//! ([`ranges::range`]), which the filters select:
//!
//! | list | filter | index |
//! |---|---|---|
//! | events | type, otherwise none | (project, type, id), (project, id) |
//! | deliveries, ended | endpoint, not delivered | (endpoint, status, id) |
//! | | endpoint | (endpoint, id) |
//! | | not delivered | (project, status, id) |
//! | | type, otherwise none | (project, type, id), (project, id) |
//! | deliveries, pending | endpoint, otherwise none | (endpoint, id), (project, id) |
//! | attempts | endpoint, not succeeded | (endpoint, outcome, start, id) |
//! | | endpoint | (endpoint, start, id) |
//! | | not succeeded, otherwise none | (project, outcome, start, id), (project, start, id) |
//! | | delivery | (id) |
//!
//! Times narrow each of these ranges, and so does an event or a delivery: to its millisecond, which
//! the ids derived from it share. (Replays of an event have another time and are looked up by their
//! ids.) The few attempts of a delivery are sorted by number. Further filters skip rows on the way:
//! a type of an endpoint, a type among pending or failed deliveries, delivered ones where nearly
//! all failed. Such a page may read as many rows as lie between the wanted ones, bounded by the
//! times. The same holds for principals that are bound to an owner, whose endpoints are such a
//! filter.

mod attempts;
mod by_id;
pub(crate) mod deliveries;
pub(crate) mod events;
pub(crate) mod ids;
mod pages;
pub(crate) mod ranges;
#[cfg(test)]
mod tests;

pub use attempts::AttemptFilter;
pub use deliveries::DeliveryFilter;
pub use events::EventFilter;
