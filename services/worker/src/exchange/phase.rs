//! The phase of an exchange when its timeout passed.

use std::time::Duration;

use outrider_model::text::span;

use super::stream::Watch;

/// The phase of an exchange when its timeout passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The host is being looked up, or does not accept the connection.
    Connecting,
    /// The TLS handshake is not done.
    Securing,
    /// The endpoint does not read the rest of the request.
    Sending,
    /// No part of a response has arrived.
    Waiting,
    /// The status line of the response is incomplete.
    Reading,
}

impl Phase {
    /// Explains the phase to the owner of the endpoint, with the endpoint's timeout.
    pub(crate) fn explain(self, limit: Duration) -> String {
        let limit = span(limit);
        match self {
            Self::Connecting => format!("no connection within {limit}"),
            Self::Securing => {
                format!("connected, but the TLS handshake was not done within {limit}")
            }
            Self::Sending => {
                format!("connected, but the endpoint did not take the whole request within {limit}")
            }
            Self::Waiting => format!("the request was sent, but no answer came within {limit}"),
            Self::Reading => {
                format!("an answer began, but its status line was not whole within {limit}")
            }
        }
    }

    /// Returns the phase of an open connection.
    pub(crate) fn of(watch: &Watch) -> Self {
        match (watch.heard(), watch.is_stuck()) {
            (true, _) => Self::Reading,
            (false, true) => Self::Sending,
            (false, false) => Self::Waiting,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;
    use crate::{exchange::stream::Metered, options::Options};

    #[tokio::test]
    async fn what_is_not_taken_is_told_from_what_is_not_answered() {
        let (near, mut far) = duplex(4);
        let watch = Watch::default();
        let mut near = Metered::new(near, watch.clone(), Options::default().wire());
        near.write_all(b"abcd").await.unwrap();
        assert_eq!(Phase::of(&watch), Phase::Waiting);
        assert!(
            tokio::time::timeout(Duration::from_millis(20), near.write_all(b"e")).await.is_err()
        );
        assert_eq!(Phase::of(&watch), Phase::Sending);
        far.read_exact(&mut [0; 4]).await.unwrap();
        near.write_all(b"e").await.unwrap();
        assert_eq!(Phase::of(&watch), Phase::Waiting);
        watch.has_heard();
        assert_eq!(Phase::of(&watch), Phase::Reading);
    }
}
