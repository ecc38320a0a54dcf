//! What of our commands, keys and channels Redis lets this process use. What is refused is told
//! once in the log, by the metric for as long as it lasts, and by readiness where nothing can be
//! delivered without it.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use outrider_model::{Error, Result};
use outrider_telemetry::catalogue::queue::REFUSED;
use tokio::sync::Notify;

use super::words::explain;

/// Something that Redis may refuse: as access control lists spell it, or `auth` (the user and
/// password) and `keys`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Right {
    pub(super) name: &'static str,
    /// What is lost without it; none where nothing can be delivered without it.
    without: Option<&'static str>,
}

const fn needed(name: &'static str) -> Right {
    Right { name, without: None }
}

const fn wanted(name: &'static str, without: &'static str) -> Right {
    Right { name, without: Some(without) }
}

/// What is lost where the server cannot be told to end the wait of a reading command.
const UNBLOCK: &str = "several shards are read in short waits";

/// All of them; docs/operations.md lists the same.
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

/// Those that are noticed where they are used, and not by the probe.
const NOTED: [&str; 3] = ["subscribe", "client|id", "client|unblock"];

impl Right {
    pub(super) fn of(name: &str) -> Option<Self> {
        RIGHTS.into_iter().find(|right| right.name == name)
    }

    fn is_needed(self) -> bool {
        self.without.is_none()
    }

    /// Counts it as refused by one queue more or less.
    fn count(self, queues: i64) {
        let needed = if self.is_needed() { "yes" } else { "no" };
        REFUSED.with_label_values(&[self.name, needed]).add(queues);
    }
}

/// What is refused, by the server's words.
pub(super) type Refused = BTreeMap<Right, String>;

/// What was found out last.
pub(super) struct Rights {
    state: Mutex<State>,
    doubted: Notify,
}

struct State {
    /// Why it is not known what is refused.
    unknown: Option<Error>,
    refused: Refused,
}

impl Rights {
    pub(super) fn new() -> Self {
        // So that what was never refused is shown as 0.
        RIGHTS.into_iter().for_each(|right| right.count(0));
        let unknown = Some(Error::unavailable("redis: it was not asked yet"));
        Self {
            state: Mutex::new(State { unknown, refused: Refused::new() }),
            doubted: Notify::new(),
        }
    }

    /// Fails while something is refused without which jobs are not delivered. What is tried then
    /// may leave half of its work.
    pub(super) fn allow(&self) -> Result<()> {
        let state = self.locked();
        if state.unknown.is_some() { Ok(()) } else { refusal(&state.refused) }
    }

    /// Fails while it is not known that nothing is refused without which jobs are not delivered.
    pub(super) fn ready(&self) -> Result<()> {
        let state = self.locked();
        state.unknown.clone().map_or_else(|| refusal(&state.refused), Err)
    }

    /// Whether this is not known to be refused.
    pub(super) fn may(&self, name: &str) -> bool {
        !self.locked().refused.keys().any(|right| right.name == name)
    }

    /// A command was refused: unless that is known, all is asked for again.
    pub(super) fn suspect(&self, right: Option<Right>) {
        if right.is_some_and(|right| self.may(right.name)) {
            self.doubt();
        }
    }

    /// All is to be asked for again: the server may be another.
    pub(super) fn doubt(&self) {
        self.doubted.notify_one();
    }

    /// Returns when there was doubt since the last time.
    pub(super) async fn doubted(&self) {
        self.doubted.notified().await;
    }

    /// The probe was answered.
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

    /// The probe was not answered, or only by what the server is not able to now.
    pub(super) fn not_found(&self, why: Error) {
        self.locked().unknown = Some(why);
    }

    /// One of those that the probe does not try was used: refused with these words, or not.
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
    /// Tells what differs, and keeps it.
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

/// The error that names what is refused of what is needed.
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
        // A refusal of PING is answer enough; what is no command, or not needed by everybody, is
        // not in the line.
        documented.retain(|right| *right != "ping");
        documented.extend(["auth", "keys", "select", "cluster|slots"]);
        let mut listed: Vec<_> = RIGHTS.iter().map(|right| right.name).collect();
        documented.sort_unstable();
        listed.sort_unstable();
        assert_eq!(listed, documented);
    }

    #[test]
    fn the_scripts_and_the_probe_use_what_is_listed() {
        // Two calls in a line would hide each other here, and from errors.
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
