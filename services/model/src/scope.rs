//! The permissions of an API key.

use std::fmt;

macro_rules! scopes {
    ($($(#[$doc:meta])* $name:ident = $bit:literal, $text:literal;)*) => {
        /// A permission. The numbers are those of `outrider.options.v1.Scope`, and are stored.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Scope {$($(#[$doc])* $name = $bit,)*}

        impl Scope {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Returns the scope with this number.
            #[must_use]
            pub fn from_number(number: i32) -> Option<Self> {
                match number {$($bit => Some(Self::$name),)* _ => None}
            }
        }

        impl fmt::Display for Scope {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {$(Self::$name => $text,)*})
            }
        }
    };
}

scopes! {
    /// Everything that the key has access to.
    Admin = 1, "SCOPE_ADMIN";
    /// Publish events.
    EventsPublish = 2, "SCOPE_EVENTS_PUBLISH";
    /// Read events, deliveries, attempts.
    EventsRead = 3, "SCOPE_EVENTS_READ";
    /// Retry deliveries, erase payloads of events.
    DeliveriesWrite = 4, "SCOPE_DELIVERIES_WRITE";
    /// Read endpoints and subscriptions.
    EndpointsRead = 5, "SCOPE_ENDPOINTS_READ";
    /// Change endpoints and subscriptions.
    EndpointsWrite = 6, "SCOPE_ENDPOINTS_WRITE";
    /// Read projects.
    ProjectsRead = 7, "SCOPE_PROJECTS_READ";
    /// Change projects.
    ProjectsWrite = 8, "SCOPE_PROJECTS_WRITE";
    /// Read API keys.
    ApiKeysRead = 9, "SCOPE_API_KEYS_READ";
    /// Change API keys.
    ApiKeysWrite = 10, "SCOPE_API_KEYS_WRITE";
    /// Read the organization.
    OrganizationsRead = 11, "SCOPE_ORGANIZATIONS_READ";
    /// Change the organization.
    OrganizationsWrite = 12, "SCOPE_ORGANIZATIONS_WRITE";
    /// Read event types.
    EventTypesRead = 13, "SCOPE_EVENT_TYPES_READ";
    /// Change event types.
    EventTypesWrite = 14, "SCOPE_EVENT_TYPES_WRITE";
}

/// A set of scopes, with a bit for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ScopeSet(u64);

impl ScopeSet {
    /// Converts the stored form. Drops the bits of unknown scopes.
    #[must_use]
    pub fn from_bits(bits: i64) -> Self {
        let known = Scope::ALL.iter().copied().collect::<Self>();
        Self(bits.cast_unsigned() & known.0)
    }

    /// Returns the stored form.
    #[must_use]
    pub fn bits(self) -> i64 {
        self.0.cast_signed()
    }

    /// Whether `scope` is permitted: by itself or by [`Scope::Admin`].
    #[must_use]
    pub fn permits(self, scope: Scope) -> bool {
        self.0 & (1 << scope as u8 | 1 << Scope::Admin as u8) != 0
    }

    /// Whether the set permits everything that `other` permits.
    #[must_use]
    pub fn covers(self, other: Self) -> bool {
        other.iter().all(|scope| self.permits(scope))
    }

    /// Whether the set is empty.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns the scopes in the set.
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.iter().copied().filter(move |scope| self.0 & 1 << *scope as u8 != 0)
    }
}

impl FromIterator<Scope> for ScopeSet {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |bits, scope| bits | 1 << scope as u8))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admin_permits_and_covers_everything_and_nothing_else_does() {
        let admin: ScopeSet = [Scope::Admin].into_iter().collect();
        let reader: ScopeSet = [Scope::EventsRead, Scope::EndpointsRead].into_iter().collect();
        assert!(Scope::ALL.iter().all(|scope| admin.permits(*scope)));
        assert!(admin.covers(reader) && !reader.covers(admin));
        assert!(reader.permits(Scope::EventsRead) && !reader.permits(Scope::EventsPublish));
        assert_eq!(ScopeSet::from_bits(reader.bits()), reader);
        assert_eq!(ScopeSet::from_bits(1 << 60), ScopeSet::default());
    }
}
