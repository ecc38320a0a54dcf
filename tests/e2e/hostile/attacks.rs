//! The attacks by name.

use anyhow::Result;
use futures::future::BoxFuture;

use super::{
    callers, floods,
    foe::Foe,
    held, receivers, tenants,
    terms::{Takes, is_asked_for},
    traffic,
};

/// One attack. It repeats its rounds until it is aborted.
#[derive(Clone, Copy)]
pub struct Attack {
    pub name: &'static str,
    pub takes: Takes,
    pub run: fn(Foe) -> BoxFuture<'static, Result<()>>,
}

macro_rules! attacks {
    ($($name:literal $takes:ident $($run:ident)::+;)+) => {
        &[$(Attack { name: $name, takes: Takes::$takes, run: |foe| Box::pin($($run)::+(foe)) }),+]
    };
}

/// The attacks on all shapes, alone and all at once.
const ATTACKS: &[Attack] = attacks! {
    "repeated-pairs" Shares tenants::repeated_pairs;
    "many-endpoints" Shares tenants::many;
    "large-payloads" Shares tenants::payloads;
    "many-projects" Shares tenants::projects;
    "turncoats" Processor tenants::turncoats;

    "publish-flood" Processor traffic::publish_flood;
    "fan-out" Processor traffic::fan_out;
    "batches" Processor traffic::batches;
    "idempotency-keys" Processor traffic::idempotency_keys;
    "lists" Processor traffic::lists;
    "churn" Processor traffic::churn;
    "retries" Processor traffic::retries;
    "schemas" Processor traffic::schemas;

    "unread-tails" Shares held::unread_tails;
    "unread-streams" Processor held::unread_streams;
    "unread-answers" Processor held::unread_answers;
    "dripping-uploads" Shares held::dripping_uploads;
    "dripping-bodies" Shares held::dripping_bodies;

    "interim-answers" Processor receivers::interim_answers;
    "answer-heads" Processor receivers::heads;
    "answer-bodies" Processor receivers::bodies;
    "answer-chunks" Processor receivers::chunks;
    "answer-ends" Shares receivers::ends;
    "early-answers" Processor receivers::early;
    "deaf-receivers" Shares receivers::deaf;
    "receivers-handshakes" Shares receivers::handshakes;

    "idle-connections" Shares callers::idle_connections;
    "slow-heads" Shares callers::slow_heads;
    "bodies-without-key" Processor callers::bodies;
    "invented-keys" Processor callers::invented_keys;
    "malformed" Processor callers::malformed;
    "rapid-reset" Processor floods::rapid_reset;
    "settings-flood" Processor floods::settings;
    "ping-flood" Processor floods::pings;
    "answered-pings" Processor floods::answered_pings;
    "continuations" Processor floods::continuations;
    "small-frames" Processor floods::small_frames;
};

/// The attacks that need TLS on the public port. The others use plain HTTP.
const TLS_ATTACKS: &[Attack] = attacks! {
    "callers-handshakes" Shares callers::handshakes;
};

fn asked_for(attacks: &[Attack]) -> Vec<Attack> {
    attacks.iter().copied().filter(|attack| is_asked_for(attack.name)).collect()
}

/// Returns the attacks with plain HTTP.
pub fn plain() -> Vec<Attack> {
    asked_for(ATTACKS)
}

/// Returns the attacks on a public port with TLS.
pub fn by_tls() -> Vec<Attack> {
    asked_for(TLS_ATTACKS)
}
