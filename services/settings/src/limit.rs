//! Limits of values: what is admitted, and the words for what is not.

use std::{
    net::SocketAddr,
    ops::{RangeFrom, RangeInclusive, RangeToInclusive},
    time::Duration,
};

use crate::Span;

/// A limit of the values of a field.
pub trait Limit<T> {
    /// Whether a value is admitted.
    fn admits(&self, value: &T) -> bool;

    /// What a value must be; follows "must be".
    fn words(&self) -> String;
}

/// A type whose values can be the ends of a range.
pub trait Bound: PartialOrd {
    /// The value as an error shows it.
    fn shown(&self) -> String;
}

macro_rules! numbers {
    ($($type:ty),*) => {$(
        impl Bound for $type {
            fn shown(&self) -> String {
                self.to_string()
            }
        }
    )*};
}

numbers!(u32, u64, usize, f64);

impl Bound for Duration {
    fn shown(&self) -> String {
        Span(*self).to_string()
    }
}

impl<T: Bound> Limit<T> for RangeFrom<T> {
    fn admits(&self, value: &T) -> bool {
        self.contains(value)
    }

    fn words(&self) -> String {
        format!("at least {}", self.start.shown())
    }
}

impl<T: Bound> Limit<T> for RangeToInclusive<T> {
    fn admits(&self, value: &T) -> bool {
        self.contains(value)
    }

    fn words(&self) -> String {
        format!("at most {}", self.end.shown())
    }
}

impl<T: Bound> Limit<T> for RangeInclusive<T> {
    fn admits(&self, value: &T) -> bool {
        self.contains(value)
    }

    fn words(&self) -> String {
        format!("{} to {}", self.start().shown(), self.end().shown())
    }
}

/// Admits every length of time but zero.
#[derive(Debug, Clone, Copy)]
pub struct Positive;

impl Limit<Duration> for Positive {
    fn admits(&self, value: &Duration) -> bool {
        !value.is_zero()
    }

    fn words(&self) -> String {
        "more than 0s".to_owned()
    }
}

/// Admits these texts.
#[derive(Debug, Clone, Copy)]
pub struct OneOf(pub &'static [&'static str]);

impl Limit<String> for OneOf {
    fn admits(&self, value: &String) -> bool {
        self.0.contains(&value.as_str())
    }

    fn words(&self) -> String {
        self.0.iter().map(|text| format!("\"{text}\"")).collect::<Vec<_>>().join(" or ")
    }
}

/// Another limit, or a value with a meaning of its own, with more words.
struct Worded<L, F> {
    limit: L,
    also: F,
    words: String,
}

impl<T, L: Limit<T>, F: Fn(&T) -> bool> Limit<T> for Worded<L, F> {
    fn admits(&self, value: &T) -> bool {
        self.limit.admits(value) || (self.also)(value)
    }

    fn words(&self) -> String {
        self.words.clone()
    }
}

/// Admits what `limit` admits, and says why.
pub fn because<T>(limit: impl Limit<T>, why: &str) -> impl Limit<T> {
    Worded { words: format!("{}: {why}", limit.words()), limit, also: |_: &T| false }
}

/// Admits what `limit` admits, and zero, which has a meaning of its own.
pub fn or_zero(limit: impl Limit<Duration>, meaning: &str) -> impl Limit<Duration> {
    Worded {
        words: format!("{}, or 0s {meaning}", limit.words()),
        limit,
        also: |value: &Duration| value.is_zero(),
    }
}

/// Admits what `limit` admits, and the empty text.
pub fn or_empty(limit: impl Limit<String>) -> impl Limit<String> {
    Worded {
        words: format!("{}, or empty", limit.words()),
        limit,
        also: |value: &String| value.is_empty(),
    }
}

struct ListenAddress;

impl Limit<String> for ListenAddress {
    fn admits(&self, value: &String) -> bool {
        value.parse::<SocketAddr>().is_ok()
    }

    fn words(&self) -> String {
        "an address and a port, such as 127.0.0.1:8080".to_owned()
    }
}

/// Admits an address and a port.
#[must_use]
pub fn listen_address() -> impl Limit<String> {
    ListenAddress
}
