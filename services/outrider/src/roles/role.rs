//! The roles that a process can have.

use std::collections::BTreeSet;

use clap::ValueEnum;

/// A part of Outrider that can be a process of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Role {
    /// All of them.
    All,
    /// The public API.
    Gateway,
    /// Accepts events.
    Ingest,
    /// Commits events, feeds the queue, settles attempts, and serves reads.
    Dispatch,
    /// Signs and sends.
    Worker,
    /// Opens connections to endpoints.
    Egress,
    /// Manages configuration.
    Admin,
}

impl Role {
    /// Returns the name on the command line.
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

/// Roles that read or write the database.
pub const STORED: [Role; 4] = [Role::Ingest, Role::Dispatch, Role::Worker, Role::Admin];
/// Roles that check API keys in the directory.
pub const KEYED: [Role; 4] = [Role::Gateway, Role::Ingest, Role::Dispatch, Role::Admin];
/// Roles that use the queue.
pub const QUEUED: [Role; 3] = [Role::Dispatch, Role::Worker, Role::Admin];

/// The roles of one process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roles(BTreeSet<Role>);

impl Roles {
    const EACH: [Role; 6] =
        [Role::Gateway, Role::Ingest, Role::Dispatch, Role::Worker, Role::Egress, Role::Admin];

    /// Collects roles. `All` stands for every role.
    #[must_use]
    pub fn new(named: &[Role]) -> Self {
        Self(if named.contains(&Role::All) {
            Self::EACH.into()
        } else {
            named.iter().copied().collect()
        })
    }

    /// Parses the roles of the command line. Fails if a name has no effect.
    pub fn named(named: &[Role]) -> Result<Self, &'static str> {
        let roles = Self::new(named);
        if named.len() > 1 && named.contains(&Role::All) {
            Err("--role all: stands alone, since it is every role")
        } else if named.len() > 1 && roles.0.len() != named.len() {
            Err("--role: a role is given twice")
        } else {
            Ok(roles)
        }
    }

    /// Whether the process has a role.
    #[must_use]
    pub fn has(&self, role: Role) -> bool {
        self.0.contains(&role)
    }

    /// Whether the process has any of these roles.
    #[must_use]
    pub fn has_any(&self, roles: &[Role]) -> bool {
        roles.iter().any(|role| self.has(*role))
    }

    /// Whether all roles are in this process, so that no listener between roles is needed.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.0.len() == Self::EACH.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_is_named_once_and_all_alone() {
        assert!(Roles::named(&[Role::All]).is_ok_and(|roles| roles.is_all()));
        assert_eq!(
            Roles::named(&[Role::Worker, Role::Egress]),
            Ok(Roles::new(&[Role::Egress, Role::Worker]))
        );
        assert!(Roles::named(&[Role::All, Role::Worker]).unwrap_err().contains("stands alone"));
        assert!(Roles::named(&[Role::Worker, Role::Worker]).unwrap_err().contains("twice"));
    }
}
