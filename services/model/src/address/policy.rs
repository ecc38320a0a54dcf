//! The policy of an installation: the built-in rules, preceded by its own lists.

use std::net::IpAddr;

use super::{
    classify::{Classification, classify},
    entries::Entry,
    metadata, names, ports,
    refused::Refused,
};

/// The policy of an installation. Use [`Policy::judge`] and [`Policy::judge_address`].
///
/// The rules apply in this order. The first that decides names the rule:
///
/// 1. The form: malformed and numeric names, names that no server answers, addresses that are no
///    destination.
/// 2. `deny`: by the name as it is written, and by each address, also of names that are allowed.
/// 3. Metadata services of clouds: open only to an entry of `allow` that is exactly that name or
///    address.
/// 4. `allow`: a network opens its addresses. A name opens itself and the private addresses that it
///    has, but neither this machine nor its link: those need an entry of their own.
/// 5. The built-in rules.
///
/// An entry with ports applies only to these, and opens them, including the ports of other
/// services.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    /// The development switch: permits 127.0.0.0/8, ::1, `localhost` and `*.localhost` besides, and
    /// nothing else. Default: off.
    pub allow_loopback: bool,
    /// Ports of other services that endpoints may have all the same. Default: none.
    pub allowed_ports: Vec<u16>,
    /// What may be reached besides the public internet. Default: nothing.
    pub allow: Vec<Entry>,
    /// What may not be reached, whatever allows it. Default: nothing.
    pub deny: Vec<Entry>,
}

/// What a permission rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// The built-in rules.
    BuiltIn,
    /// This entry of [`Policy::allow`].
    Allowed(usize),
}

/// A host and port that may be looked up or dialed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judged {
    /// A permitted address, canonical: it needs no look-up.
    Address(IpAddr, Basis),
    /// A permitted name. Its addresses are still to be judged.
    Name(Name),
}

/// A name that the policy permits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    text: String,
    basis: Basis,
}

impl Name {
    /// In lower case, without the root dot.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What permits it.
    #[must_use]
    pub fn basis(&self) -> Basis {
        self.basis
    }
}

/// Rules of addresses that no entry overrules: there is nothing that answers, or it is this machine
/// in another form.
const NO_DESTINATION: [&str; 5] =
    ["ipv4-this-network", "ipv4-multicast", "ipv4-broadcast", "ipv6-unspecified", "ipv6-multicast"];

/// Rules of addresses that a name may have when it is allowed: the private networks that an
/// operator numbers.
const PRIVATE: [&str; 3] = ["ipv4-private", "ipv4-shared", "ipv6-unique-local"];

impl Policy {
    /// Judges a host (an address without brackets, or a name in ASCII) and a port before anything
    /// is looked up. Case and one root dot of a name do not matter.
    pub fn judge(&self, host: &str, port: u16) -> Result<Judged, Refused> {
        if let Ok(address) = host.parse::<IpAddr>() {
            let address = address.to_canonical();
            return self
                .judge_address(None, address, port)
                .map(|basis| Judged::Address(address, basis));
        }
        let text = names::canonical(host)?;
        self.check_denied(|entry| entry.covers_name(&text), port)?;
        let is_metadata = names::check_metadata(&text).is_err();
        let basis = match self.allowing(
            |entry| entry.covers_name(&text) && (!is_metadata || entry.is_one_name()),
            port,
        ) {
            Some(at) => Basis::Allowed(at),
            None => names::check(&text, self.allow_loopback).map(|()| Basis::BuiltIn)?,
        };
        self.check_port(basis, port)?;
        Ok(Judged::Name(Name { text, basis }))
    }

    /// Judges an address: one that a permitted name has, at the port that was judged with it, or
    /// one that stands for itself.
    pub fn judge_address(
        &self,
        of: Option<&Name>,
        address: IpAddr,
        port: u16,
    ) -> Result<Basis, Refused> {
        let address = address.to_canonical();
        let built_in = match classify(address) {
            Classification::Refused(refused) if NO_DESTINATION.contains(&refused.rule) => {
                return Err(refused);
            }
            Classification::Refused(_) if self.allow_loopback && address.is_loopback() => None,
            Classification::Refused(refused) => Some(refused),
            Classification::Allowed => None,
        };
        let inner = match address {
            IpAddr::V6(address) => metadata::embedded(address).map(IpAddr::V4),
            IpAddr::V4(_) => None,
        };
        let covers = |entry: &Entry| {
            entry.covers_address(address) || inner.is_some_and(|inner| entry.covers_address(inner))
        };
        self.check_denied(covers, port)?;
        let guarded = metadata::check(address);
        let exact = guarded.is_err();
        let entry = self.allowing(
            |entry| entry.covers_address(address) && (!exact || entry.is_one_address()),
            port,
        );
        let basis = match (entry, of, built_in) {
            (Some(at), ..) => Basis::Allowed(at),
            (None, _, _) if exact => return guarded.map(|()| Basis::BuiltIn),
            (None, _, None) => Basis::BuiltIn,
            (None, Some(Name { basis: Basis::Allowed(at), .. }), Some(refused))
                if PRIVATE.contains(&refused.rule) =>
            {
                Basis::Allowed(*at)
            }
            (None, _, Some(refused)) => return Err(refused),
        };
        if of.is_none() {
            self.check_port(basis, port)?;
        }
        Ok(basis)
    }

    /// The entry of `allow` that counts for a host and port: one that names the port before one
    /// that does not.
    fn allowing(&self, covers: impl Fn(&Entry) -> bool, port: u16) -> Option<usize> {
        let counts = |entry: &Entry| entry.covers_port(port) && covers(entry);
        let with_ports = self.allow.iter().position(|entry| entry.ports.is_some() && counts(entry));
        with_ports.or_else(|| self.allow.iter().position(counts))
    }

    fn check_denied(&self, covers: impl Fn(&Entry) -> bool, port: u16) -> Result<(), Refused> {
        match self.deny.iter().position(|entry| entry.covers_port(port) && covers(entry)) {
            Some(at) => Err(Refused { denied_by: Some(at), ..DENIED }),
            None => Ok(()),
        }
    }

    /// Judges a port: those of other services (SSH, mail, databases, control planes …) are refused
    /// unless the installation opens them, everywhere or by the entry on which the host rests.
    fn check_port(&self, basis: Basis, port: u16) -> Result<(), Refused> {
        match basis {
            Basis::Allowed(at) if self.allow.get(at).is_some_and(|entry| entry.ports.is_some()) => {
                Ok(())
            }
            _ => ports::check(port, &self.allowed_ports),
        }
    }
}

const DENIED: Refused = Refused::new("denied", "a destination that this installation denies");
