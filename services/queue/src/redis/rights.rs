//! Which commands, keys and channels Redis permits this process to use. A refusal is logged once,
//! is shown by the metric while it lasts, and fails readiness if nothing can be delivered without
//! the right.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use outrider_model::{Error, Result};
use outrider_telemetry::catalog::queue::REFUSED;
use tokio::sync::Notify;

use super::words::explain;

/// Something that Redis may refuse: a command as access control lists spell it, `auth` (the user
/// and password), or `keys`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Right {
    pub(super) name: &'static str,
    /// What is lost without it. `None` if nothing can be delivered without it.
    without: Option<&'static str>,
}

const fn needed(name: &'static str) -> Right {
    Right { name, without: None }
}

const fn wanted(name: &'static str, without: &'static str) -> Right {
    Right { name, without: Some(without) }
}

/// What is lost if the wait of a reading command cannot be ended.
const UNBLOCK: &str = "several shards are read in short waits";

/// All rights. docs/operations.md lists the same.
pub(super) const RIGHTS: [Right; 30] = [
    needed("auth"),
    needed("keys"),
    needed("select"),
    needed("cluster|slots"),
    needed("evalsha"),
    needed("script|load"),
    needed("get"),
    needed("set"),
    needed("exists"),
    needed("unlink"),
    needed("hmget"),
    needed("hset"),
    needed("hdel"),
    needed("hlen"),
    needed("hincrby"),
    needed("xadd"),
    needed("xack"),
    needed("xdel"),
    needed("xclaim"),
    needed("xpending"),
    needed("xreadgroup"),
    needed("xgroup|create"),
    needed("xinfo|groups"),
    wanted(
        "info",
        "the eviction policy is unknown, and a restart or failover of the server is noticed late",
    ),
    wanted("xinfo|consumers", "consumers that are gone are not forgotten"),
    wanted("xgroup|delconsumer", "consumers that are gone are not forgotten"),
    wanted("publish", "changes of configuration are found by polling"),
    wanted("subscribe", "changes of configuration are found by polling"),
    wanted("client|id", UNBLOCK),
    wanted("client|unblock", UNBLOCK),
];

/// The rights that are checked by their use and not by the probe.
const NOTED: [&str; 3] = ["subscribe", "client|id", "client|unblock"];

impl Right {
    pub(super) fn of(name: &str) -> Option<Self> {
        RIGHTS.into_iter().find(|right| right.name == name)
    }

    fn is_needed(self) -> bool {
        self.without.is_none()
    }

    /// Adds to the number of queues that are refused this right.
    fn count(self, queues: i64) {
        let needed = if self.is_needed() { "yes" } else { "no" };
        REFUSED.with_label_values(&[self.name, needed]).add(queues);
    }
}

/// The refused rights, with the server's words.
pub(super) type Refused = BTreeMap<Right, String>;

/// The latest result.
pub(super) struct Rights {
    state: Mutex<State>,
    doubted: Notify,
}

struct State {
    /// Why it is unknown what is refused.
    unknown: Option<Error>,
    refused: Refused,
}

impl Rights {
    pub(super) fn new() -> Self {
        // A right that was never refused then shows 0.
        RIGHTS.into_iter().for_each(|right| right.count(0));
        let unknown = Some(Error::unavailable("redis: it was not asked yet"));
        Self {
            state: Mutex::new(State { unknown, refused: Refused::new() }),
            doubted: Notify::new(),
        }
    }

    /// Fails while a right is refused that delivery needs. A step that began without it might be
    /// left half done.
    pub(super) fn allow(&self) -> Result<()> {
        let state = self.locked();
        if state.unknown.is_some() { Ok(()) } else { refusal(&state.refused) }
    }

    /// Fails unless all rights that delivery needs are known to be granted.
    pub(super) fn ready(&self) -> Result<()> {
        let state = self.locked();
        state.unknown.clone().map_or_else(|| refusal(&state.refused), Err)
    }

    /// Whether the right is not known to be refused.
    pub(super) fn may(&self, name: &str) -> bool {
        !self.locked().refused.keys().any(|right| right.name == name)
    }

    /// Called when a command was refused. Unless that is known, everything is probed again.
    pub(super) fn suspect(&self, right: Option<Right>) {
        if right.is_some_and(|right| self.may(right.name)) {
            self.doubt();
        }
    }

    /// Has everything probed again, because the server may be another one.
    pub(super) fn doubt(&self) {
        self.doubted.notify_one();
    }

    /// Returns when a doubt was raised since the last call.
    pub(super) async fn doubted(&self) {
        self.doubted.notified().await;
    }

    /// Takes the result of the probe.
    pub(super) fn found(&self, mut refused: Refused) {
        let mut state = self.locked();
        state.unknown = None;
        refused.extend(
            state
                .refused
                .iter()
                .filter(|(right, _)| NOTED.contains(&right.name))
                .map(|(a, b)| (*a, b.clone())),
        );
        state.change(refused);
    }

    /// Called when the probe has no result, because the server did not answer or is in a state that
    /// prevents the work.
    pub(super) fn not_found(&self, why: Error) {
        self.locked().unknown = Some(why);
    }

    /// Records the use of a right that the probe does not try: refused with these words, or
    /// granted.
    pub(super) fn note(&self, name: &str, words: Option<String>) {
        let Some(right) = Right::of(name) else { return };
        let mut state = self.locked();
        let mut refused = state.refused.clone();
        match words {
            Some(words) => refused.insert(right, words),
            None => refused.remove(&right),
        };
        state.change(refused);
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Rights {
    fn drop(&mut self) {
        self.locked().refused.keys().for_each(|right| right.count(-1));
    }
}

impl State {
    /// Logs the differences, and keeps the result.
    fn change(&mut self, refused: Refused) {
        for (right, words) in refused.iter().filter(|(right, _)| !self.refused.contains_key(right))
        {
            right.count(1);
            let refusal = explain(Some(right.name), words, true);
            match right.without {
                None => {
                    tracing::error!(%refusal, "redis does not let this process work: nothing is \
                        delivered")
                }
                Some(lost) => {
                    tracing::warn!(%refusal, lost, "redis lets this process work with less")
                }
            }
        }
        for right in self.refused.keys().filter(|right| !refused.contains_key(right)) {
            right.count(-1);
            tracing::info!(right = right.name, "redis refuses this no longer");
        }
        self.refused = refused;
    }
}

/// Fails with an error that names the refused rights that are needed.
fn refusal(refused: &Refused) -> Result<()> {
    let mut needed = refused.iter().filter(|(right, _)| right.is_needed());
    let Some((first, words)) = needed.next() else { return Ok(()) };
    let mut message = format!("redis: {}", explain(Some(first.name), words, true));
    let others: Vec<_> = needed.map(|(right, _)| right.name).collect();
    if !others.is_empty() {
        message = format!("{message}; refused, too: {}", others.join(", "));
    }
    Err(Error::unavailable(message))
}

#[cfg(test)]
mod tests {
    use super::{super::script, *};

    fn refused(names: &[&str]) -> Refused {
        names
            .iter()
            .map(|name| (Right::of(name).expect("a right"), "NOPERM no permissions to".to_owned()))
            .collect()
    }

    #[test]
    fn only_what_is_needed_keeps_it_from_being_ready() {
        let rights = Rights::new();
        assert!(rights.ready().is_err() && rights.allow().is_ok(), "nothing is known");
        rights.found(refused(&["info", "publish"]));
        assert!(rights.ready().is_ok() && !rights.may("info"));
        rights.found(refused(&["info", "xadd", "hlen"]));
        let text = rights.allow().expect_err("refused").message;
        assert!(text.contains("HLEN is refused") && text.ends_with("refused, too: xadd"), "{text}");
        assert_eq!(rights.ready().expect_err("refused").message, text);
        rights.not_found(Error::unavailable("gone"));
        assert!(rights.allow().is_ok(), "it may be another server");
        assert_eq!(rights.ready().expect_err("gone").message, "gone");
        rights.found(Refused::new());
        assert!(rights.ready().is_ok() && rights.may("info"));
    }

    #[test]
    fn what_the_probe_does_not_try_is_kept_until_it_is_used_again() {
        let rights = Rights::new();
        rights.note("subscribe", Some("NOPERM".to_owned()));
        rights.found(Refused::new());
        assert!(!rights.may("subscribe") && rights.ready().is_ok());
        rights.note("subscribe", None);
        assert!(rights.may("subscribe"));
    }

    #[test]
    fn the_documentation_lists_the_same() {
        let page = include_str!("../../../../docs/operations.md");
        let line = page.lines().find(|line| line.starts_with("ACL SETUSER")).expect("the line");
        let mut documented: Vec<_> =
            line.split(' ').filter_map(|word| word.strip_prefix('+')).collect();
        // The line omits PING, whose refusal is also an answer, and rights that are not commands or
        // not needed by everybody.
        documented.retain(|right| *right != "ping");
        documented.extend(["auth", "keys", "select", "cluster|slots"]);
        let mut listed: Vec<_> = RIGHTS.iter().map(|right| right.name).collect();
        documented.sort_unstable();
        listed.sort_unstable();
        assert_eq!(listed, documented);
    }

    #[test]
    fn the_scripts_and_the_probe_use_what_is_listed() {
        // Two calls in one line would hide each other, here and in errors.
        let uses = |script: &script::Script| -> Vec<String> {
            let calls = (1..=1_000).filter_map(|line| script.command_in(line)).collect();
            assert_eq!(Vec::len(&calls), script.calls(), "{}: one call in a line", script.name);
            calls
        };
        let probe = include_str!("lua/probe.lua");
        for script in [
            &script::EPOCH,
            &script::RESTORE,
            &script::ENQUEUE,
            &script::FINISH,
            &script::RECLAIM,
            &script::RENEW,
        ] {
            for command in uses(script) {
                assert!(Right::of(&command).is_some(), "{command}");
                assert!(probe.contains(&format!("try('{command}'")), "{command} is not tried");
            }
        }
        for tried in probe.split("try('").skip(1).filter_map(|rest| rest.split('\'').next()) {
            assert!(Right::of(tried).is_some(), "{tried}");
        }
    }
}
