//! From configuration to a running process: a file per role, wiring only.

mod admin;
mod dispatch;
mod egress;
mod foundation;
mod gateway;
mod ingest;
mod process;
mod reload;
mod tls;
mod worker;

use std::collections::BTreeSet;

use clap::ValueEnum;

pub use self::{
    egress::{examiner, policy as egress_policy},
    foundation::{bootstrap_options, create_master_key, store_options},
    process::start,
};

/// A part of Outrider that can be a process of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Role {
    /// All of them.
    All,
    /// The public face.
    Gateway,
    /// Takes events in.
    Ingest,
    /// Commits, feeds, settles, answers questions.
    Dispatch,
    /// Signs and sends.
    Worker,
    /// Opens connections to the outside.
    Egress,
    /// Manages configuration.
    Admin,
}

impl Role {
    /// As the command line names it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Gateway => "gateway",
            Self::Ingest => "ingest",
            Self::Dispatch => "dispatch",
            Self::Worker => "worker",
            Self::Egress => "egress",
            Self::Admin => "admin",
        }
    }
}

/// The roles of one process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roles(BTreeSet<Role>);

impl Roles {
    const EACH: [Role; 6] = [Role::Gateway, Role::Ingest, Role::Dispatch, Role::Worker, Role::Egress, Role::Admin];

    /// As the command line names them.
    #[must_use]
    pub fn new(named: &[Role]) -> Self {
        Self(if named.contains(&Role::All) { Self::EACH.into() } else { named.iter().copied().collect() })
    }

    /// Whether a role is one of them.
    #[must_use]
    pub fn has(&self, role: Role) -> bool {
        self.0.contains(&role)
    }

    /// Whether any of these is one of them.
    #[must_use]
    pub fn has_any(&self, roles: &[Role]) -> bool {
        roles.iter().any(|role| self.has(*role))
    }

    /// Whether nothing runs elsewhere, so that no listener between roles is needed.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.0.len() == Self::EACH.len()
    }
}
