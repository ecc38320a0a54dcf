//! Ids are TypeIDs: a prefix that names the noun and a UUIDv7 in Crockford's base32
//! (<https://github.com/jetify-com/typeid/tree/main/spec>), stored as UUID.

use std::{fmt, str::FromStr};

use ring::digest::{SHA256, digest};
use uuid::Uuid;

use crate::Timestamp;

/// The error of a text that is not an id of the expected kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be \"{prefix}_\" and 26 characters of lower-case base32")]
pub struct Malformed {
    /// The expected prefix.
    pub prefix: &'static str,
}

/// An id of any kind.
pub trait Id:
    Copy + Eq + Send + Sync + fmt::Debug + fmt::Display + From<Uuid> + Into<Uuid>
{
    /// A new id at a time, from 8 random bytes.
    #[must_use]
    fn generate(at: Timestamp, random: u64) -> Self {
        uuid_v7(at, random).into()
    }
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub Uuid);

        impl $name {
            /// The text before the underscore.
            pub const PREFIX: &'static str = $prefix;

            /// Creates an id from a time and 8 random bytes.
            #[must_use]
            pub fn new(at: Timestamp, random: u64) -> Self {
                Self(uuid_v7(at, random))
            }

            /// Converts 16 bytes to an id.
            #[must_use]
            pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
                Uuid::from_slice(bytes).ok().map(Self)
            }

            /// Returns the 16 bytes.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }

            /// Returns the time of the id, to the millisecond.
            #[must_use]
            pub fn time(&self) -> Timestamp {
                time_of(self.0)
            }
        }

        impl Id for $name {}

        impl From<Uuid> for $name {
            fn from(uuid: Uuid) -> Self {
                Self(uuid)
            }
        }

        impl From<$name> for Uuid {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str($prefix)?;
                f.write_str("_")?;
                write_base32(self.0.as_u128(), f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = Malformed;
            fn from_str(text: &str) -> Result<Self, Malformed> {
                text.strip_prefix(concat!($prefix, "_"))
                    .and_then(read_base32)
                    .map(|value| Self(Uuid::from_u128(value)))
                    .ok_or(Malformed { prefix: $prefix })
            }
        }
    )*};
}

ids! {
    /// An organization.
    OrganizationId = "org";
    /// A project.
    ProjectId = "prj";
    /// An API key.
    ApiKeyId = "key";
    /// An endpoint.
    EndpointId = "ep";
    /// A signing secret of an endpoint.
    SecretId = "sec";
    /// A subscription.
    SubscriptionId = "sub";
    /// An event type in a catalog. Callers identify it by name.
    EventTypeId = "ety";
    /// An event. Receivers see it as webhook-id.
    EventId = "evt";
    /// A delivery.
    DeliveryId = "dlv";
    /// An attempt.
    AttemptId = "att";
}

impl DeliveryId {
    /// Returns the only id of an event's delivery to an endpoint: the event's time and a hash. So
    /// doing a step twice writes nothing twice. A replay has a time of its own.
    #[must_use]
    pub fn derive(at: Timestamp, event: EventId, endpoint: EndpointId, replay_number: u32) -> Self {
        let mut input = [0; 36];
        input[..16].copy_from_slice(event.as_bytes());
        input[16..32].copy_from_slice(endpoint.as_bytes());
        input[32..].copy_from_slice(&replay_number.to_be_bytes());
        Self(timed_hash(at, &input))
    }
}

impl AttemptId {
    /// Returns the only id of an exchange: the delivery's time and a hash of delivery, attempt,
    /// generation and start. An exchange that is reported again has the same id. Two exchanges of
    /// one attempt, such as after another worker took over a lease, differ by their start.
    #[must_use]
    pub fn derive(delivery: DeliveryId, number: u32, generation: u32, start: Timestamp) -> Self {
        let mut input = [0; 32];
        input[..16].copy_from_slice(delivery.as_bytes());
        input[16..20].copy_from_slice(&number.to_be_bytes());
        input[20..24].copy_from_slice(&generation.to_be_bytes());
        input[24..].copy_from_slice(&start.0.to_be_bytes());
        Self(timed_hash(delivery.time(), &input))
    }
}

/// Returns an RFC 9562 UUIDv7. Its 12 bits after the milliseconds contain the fraction of the
/// millisecond, so that ids of one process sort by time.
fn uuid_v7(at: Timestamp, random: u64) -> Uuid {
    let millis = u128::from(at.millis().max(0).unsigned_abs()) & 0xffff_ffff_ffff;
    let fraction = u128::from(at.0.rem_euclid(1_000).unsigned_abs() * 4096 / 1_000);
    let random = u128::from(random) & 0x3fff_ffff_ffff_ffff;
    Uuid::from_u128(millis << 80 | 0x7 << 76 | fraction << 64 | 0b10 << 62 | random)
}

fn timed_hash(at: Timestamp, input: &[u8]) -> Uuid {
    let hash = digest(&SHA256, input);
    let mut tail = [0; 16];
    tail.copy_from_slice(&hash.as_ref()[..16]);
    let tail = u128::from_be_bytes(tail);
    let millis = u128::from(at.millis().max(0).unsigned_abs()) & 0xffff_ffff_ffff;
    let fraction = (tail >> 64) & 0xfff;
    Uuid::from_u128(
        millis << 80 | 0x7 << 76 | fraction << 64 | 0b10 << 62 | tail & 0x3fff_ffff_ffff_ffff,
    )
}

/// Returns the smallest and the largest UUID of a range of milliseconds `[from, to)`: bounds for
/// lookups by time.
#[must_use]
pub fn uuid_bound(at: Timestamp) -> Uuid {
    let millis = u128::from(at.millis().clamp(0, 0xffff_ffff_ffff).unsigned_abs());
    Uuid::from_u128(millis << 80)
}

/// Returns the time in a UUIDv7, to the millisecond.
#[must_use]
pub fn time_of(id: Uuid) -> Timestamp {
    Timestamp(i64::try_from(id.as_u128() >> 80).unwrap_or(0) * 1_000)
}

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

fn write_base32(value: u128, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut text = [0_u8; 26];
    for (index, character) in text.iter_mut().enumerate() {
        let shift = 5 * (25 - index);
        *character = ALPHABET[(value >> shift) as usize & 31];
    }
    f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
}

fn read_base32(text: &str) -> Option<u128> {
    let bytes = text.as_bytes();
    // 26 characters encode 130 bits, so the first may only be 0 to 7.
    if bytes.len() != 26 || bytes[0] > b'7' {
        return None;
    }
    bytes.iter().try_fold(0_u128, |value, byte| {
        let digit = ALPHABET.iter().position(|character| character == byte)?;
        Some(value << 5 | digit as u128)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_of_the_typeid_specification() {
        for (suffix, uuid) in [
            ("00000000000000000000000000", "00000000-0000-0000-0000-000000000000"),
            ("7zzzzzzzzzzzzzzzzzzzzzzzzz", "ffffffff-ffff-ffff-ffff-ffffffffffff"),
            ("01h455vb4pex5vsknk084sn02q", "01890a5d-ac96-774b-bcce-b302099a8057"),
        ] {
            let id = EventId(uuid.parse().unwrap());
            assert_eq!(id.to_string(), format!("evt_{suffix}"));
            assert_eq!(id.to_string().parse::<EventId>(), Ok(id));
        }
    }

    #[test]
    fn refuses_what_is_not_an_id() {
        for text in [
            "",
            "evt_",
            "evt",
            "dlv_01h455vb4pex5vsknk084sn02q",
            "evt_81h455vb4pex5vsknk084sn02q",
            "evt_01H455VB4PEX5VSKNK084SN02Q",
            "evt_01h455vb4pex5vsknk084sn02",
            "evt_01h455vb4pex5vsknk084sn02qq",
            "evt_01h455vb4pex5vsknk084sn0\u{e9}",
        ] {
            assert_eq!(text.parse::<EventId>(), Err(Malformed { prefix: "evt" }), "{text}");
        }
    }

    #[test]
    fn ids_sort_by_time_to_the_microsecond_fraction_and_tell_their_time() {
        let at = Timestamp(1_700_000_000_123_400);
        let id = EventId::new(at, u64::MAX);
        assert!(id < EventId::new(Timestamp(at.0 + 1), 0));
        assert_eq!(id.0.get_version_num(), 7);
        assert_eq!(id.time(), Timestamp(1_700_000_000_123_000));
        assert!(uuid_bound(at) < id.0);
    }

    #[test]
    fn derived_ids_are_the_same_each_time_and_differ_by_each_part() {
        let at = Timestamp(1_700_000_000_000_000);
        let (event, endpoint) = (EventId::new(at, 1), EndpointId::new(at, 2));
        let delivery = DeliveryId::derive(at, event, endpoint, 0);
        assert_eq!(delivery, DeliveryId::derive(at, event, endpoint, 0));
        assert_ne!(delivery, DeliveryId::derive(at, event, endpoint, 1));
        assert_eq!(delivery.time(), at);
        let attempt = AttemptId::derive(delivery, 1, 1, at);
        assert_eq!((attempt, attempt.time()), (AttemptId::derive(delivery, 1, 1, at), at));
        for other in [(2, 1, at), (1, 2, at), (1, 1, Timestamp(at.0 + 1))] {
            assert_ne!(attempt, AttemptId::derive(delivery, other.0, other.1, other.2));
        }
    }
}
