//! The scripts: what must happen at once happens in the server, in one round trip.

use std::sync::LazyLock;

use ::redis::Cmd;

use super::{error::with_second_word, keys::ShardKeys};

/// A script and the digest by which the server knows it.
pub(super) struct Script {
    /// What it does, for errors.
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
    /// Asks for a shard's epoch, and makes a new one when the shard is not what it was.
    EPOCH = "epoch";
    /// Makes a group again that is missing.
    RESTORE = "restore";
    /// Queues what fits.
    ENQUEUE = "enqueue";
    /// Frees places.
    FINISH = "finish";
    /// Takes over what was held too long.
    RECLAIM = "reclaim";
    /// Begins leases anew.
    RENEW = "renew";
    /// Tries every command that is needed.
    PROBE = "probe";
}

impl Script {
    fn new(name: &'static str, text: &'static str) -> Self {
        let digest = ::redis::Script::new(text).get_hash().to_owned();
        Self { name, text, digest }
    }

    /// Calls it on the first `keys` keys of a shard; the arguments are to be added. The capacity is
    /// of the arguments, in number and bytes.
    pub(super) fn call(&self, shard: &ShardKeys, keys: usize, capacity: (usize, usize)) -> Cmd {
        self.call_on(shard.all()[..keys].iter().map(String::as_str), capacity)
    }

    /// Calls it on these keys.
    pub(super) fn call_on<'k>(
        &self,
        keys: impl ExactSizeIterator<Item = &'k str>,
        capacity: (usize, usize),
    ) -> Cmd {
        // The command itself, the digest and up to six keys take a few hundred bytes.
        let mut command = Cmd::with_capacity(capacity.0 + keys.len() + 3, capacity.1 + 512);
        command.arg("EVALSHA").arg(&self.digest).arg(keys.len());
        for key in keys {
            command.arg(key);
        }
        command
    }

    /// The command in one of its lines, when there is one; a failure tells only the line.
    pub(super) fn command_in(&self, line: usize) -> Option<String> {
        let line = self.text.lines().nth(line.checked_sub(1)?)?;
        // `write(` is how some call what may fail halfway.
        let mut calls = line.split("call('").skip(1).chain(line.split("write('").skip(1));
        let (Some(call), None) = (calls.next(), calls.next()) else { return None };
        let mut words = call.split('\'').step_by(2).map(str::to_lowercase);
        let first = words.next()?;
        Some(with_second_word(first, || words.next()))
    }

    /// How often it calls a command.
    #[cfg(test)]
    pub(super) fn calls(&self) -> usize {
        ["redis.call('", "redis.pcall('", "write('"]
            .iter()
            .map(|call| self.text.matches(call).count())
            .sum()
    }

    /// Makes it known to the server.
    pub(super) fn load(&self) -> Cmd {
        let mut command = Cmd::new();
        command.arg("SCRIPT").arg("LOAD").arg(self.text);
        command
    }
}
