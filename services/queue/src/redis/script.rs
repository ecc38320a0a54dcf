//! The scripts. Steps that must be atomic run in the server, in one round trip.

use std::sync::LazyLock;

use ::redis::Cmd;

use super::{error::with_second_word, keys::ShardKeys};

/// A script, and the digest by which the server knows it.
pub(super) struct Script {
    /// The name in errors.
    pub(super) name: &'static str,
    text: &'static str,
    digest: String,
}

macro_rules! scripts {
    ($($(#[doc = $doc:literal])* $name:ident = $text:literal;)*) => {$(
        $(#[doc = $doc])*
        pub(super) static $name: LazyLock<Script> =
            LazyLock::new(|| Script::new($text, include_str!(concat!("lua/", $text, ".lua"))));
    )*};
}

scripts! {
    /// Returns a shard's epoch. Makes a new one if the shard was emptied or replaced.
    EPOCH = "epoch";
    /// Restores a missing group.
    RESTORE = "restore";
    /// Queues the jobs that fit.
    ENQUEUE = "enqueue";
    /// Removes jobs and frees their places.
    FINISH = "finish";
    /// Takes over jobs whose lease ran out.
    RECLAIM = "reclaim";
    /// Renews leases.
    RENEW = "renew";
    /// Tries every needed command.
    PROBE = "probe";
}

impl Script {
    fn new(name: &'static str, text: &'static str) -> Self {
        let digest = ::redis::Script::new(text).get_hash().to_owned();
        Self { name, text, digest }
    }

    /// Returns a call on the first `keys` keys of a shard, to which the caller adds the arguments.
    /// The capacity is the number and the bytes of the arguments.
    pub(super) fn call(&self, shard: &ShardKeys, keys: usize, capacity: (usize, usize)) -> Cmd {
        self.call_on(shard.all()[..keys].iter().map(String::as_str), capacity)
    }

    /// Returns a call on these keys.
    pub(super) fn call_on<'k>(
        &self,
        keys: impl ExactSizeIterator<Item = &'k str>,
        capacity: (usize, usize),
    ) -> Cmd {
        // The command, the digest and up to six keys take a few hundred bytes.
        let mut command = Cmd::with_capacity(capacity.0 + keys.len() + 3, capacity.1 + 512);
        command.arg("EVALSHA").arg(&self.digest).arg(keys.len());
        for key in keys {
            command.arg(key);
        }
        command
    }

    /// Returns the command in this line, if there is one. A failure names only the line.
    pub(super) fn command_in(&self, line: usize) -> Option<String> {
        let line = self.text.lines().nth(line.checked_sub(1)?)?;
        // Some scripts use `write(` for calls that may fail halfway.
        let mut calls = line.split("call('").skip(1).chain(line.split("write('").skip(1));
        let (Some(call), None) = (calls.next(), calls.next()) else { return None };
        let mut words = call.split('\'').step_by(2).map(str::to_lowercase);
        let first = words.next()?;
        Some(with_second_word(first, || words.next()))
    }

    /// Counts the calls of commands in the script.
    #[cfg(test)]
    pub(super) fn calls(&self) -> usize {
        ["redis.call('", "redis.pcall('", "write('"]
            .iter()
            .map(|call| self.text.matches(call).count())
            .sum()
    }

    /// Returns the command that loads the script.
    pub(super) fn load(&self) -> Cmd {
        let mut command = Cmd::new();
        command.arg("SCRIPT").arg("LOAD").arg(self.text);
        command
    }
}
