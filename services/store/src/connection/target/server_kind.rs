//! The kind of server to connect to: libpq's `target_session_attrs`.

/// The kind of server to connect to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ServerKind {
    /// Any server.
    Any,
    /// One that accepts writes.
    ReadWrite,
    /// One that is not in recovery.
    Primary,
    /// One that accepts no writes.
    ReadOnly,
    /// One that is in recovery.
    Standby,
    /// One that is in recovery, or any if there is none.
    PreferStandby,
}

impl ServerKind {
    pub fn parse(text: &str) -> Result<Self, String> {
        Ok(match text {
            "any" => Self::Any,
            "read-write" => Self::ReadWrite,
            "primary" => Self::Primary,
            "read-only" => Self::ReadOnly,
            "standby" => Self::Standby,
            "prefer-standby" => Self::PreferStandby,
            _ => {
                return Err("target_session_attrs must be any, read-write, primary, read-only, \
                            standby or prefer-standby"
                    .to_owned());
            }
        })
    }
}
