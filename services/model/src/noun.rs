//! Nouns of the configuration: organizations, projects, API keys, endpoints, subscriptions and
//! event types. Each consists of its [`Meta`], which Outrider sets, and its spec, which callers set
//! and change.

use std::{fmt, ops::Deref};

use crate::{Timestamp, id::Id};

/// Settings that only a later version knows, and that stay as they are.
pub type Unknown = serde_json::Map<String, serde_json::Value>;

/// The part of a noun that callers set when they create it, and may change. An update is a function
/// that changes a spec.
pub trait Spec: fmt::Debug + Clone + Eq + Send + Sync {
    /// The id of the noun.
    type Id: Id;
    /// The facts that are fixed at creation: the nouns that this one belongs to, and the name of an
    /// event type.
    type Fixed: fmt::Debug + Clone + Eq + Send + Sync;
}

/// A noun. It derefs to its [`Meta`], so `noun.id` is its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Noun<S: Spec> {
    /// The part that Outrider sets.
    pub meta: Meta<S>,
    /// The part that callers set and change.
    pub spec: S,
}

/// The part of a noun that Outrider sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta<S: Spec> {
    pub id: S::Id,
    pub fixed: S::Fixed,
    pub created_at: Timestamp,
    /// The time of the last change. No two versions of a noun have the same.
    pub updated_at: Timestamp,
}

impl<S: Spec> Noun<S> {
    /// A noun that is created now.
    #[must_use]
    pub fn new(id: S::Id, fixed: S::Fixed, spec: S, now: Timestamp) -> Self {
        Self { meta: Meta { id, fixed, created_at: now, updated_at: now }, spec }
    }
}

impl<S: Spec> Deref for Noun<S> {
    type Target = Meta<S>;

    fn deref(&self) -> &Meta<S> {
        &self.meta
    }
}
