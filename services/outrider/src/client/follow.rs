//! Follows a stream until it is ended. A stream that breaks is opened again at its last cursor.

use std::{ops::ControlFlow, time::Duration};

use outrider_rpc::{cause, status::from_status};
use tonic::{Code, Response, Status, Streaming};

use super::Failure;
use crate::{printable::one_line, shutdown, stderr::note};

/// Waits before a stream is opened again: the first, which doubles, and the longest.
const WAITS: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));

/// Follows a stream of messages until SIGINT or SIGTERM, or until `told` breaks. `open` opens it at
/// a cursor, and `cursor` returns the cursor of a message. Fails if the stream cannot be opened at
/// all, or if opening it again would not help.
pub async fn follow<M>(
    from: String,
    open: impl AsyncFnMut(String) -> Result<Response<Streaming<M>>, Status>,
    cursor: impl Fn(&M) -> String,
    told: impl AsyncFnMut(M) -> Result<ControlFlow<()>, Failure>,
) -> Result<(), Failure> {
    let mut following = Following { open, cursor, told, place: from, opened: false, wait: WAITS.0 };
    tokio::select! {
        ended = shutdown::requested() => Ok(ended?),
        outcome = following.run() => outcome,
    }
}

struct Following<O, C, T> {
    open: O,
    cursor: C,
    told: T,
    /// The cursor of the last message.
    place: String,
    /// Whether it was ever open.
    opened: bool,
    wait: Duration,
}

impl<O, C, T> Following<O, C, T> {
    async fn run<M>(&mut self) -> Result<(), Failure>
    where
        O: AsyncFnMut(String) -> Result<Response<Streaming<M>>, Status>,
        C: Fn(&M) -> String,
        T: AsyncFnMut(M) -> Result<ControlFlow<()>, Failure>,
    {
        loop {
            let status = match (self.open)(self.place.clone()).await {
                Ok(stream) => match self.read(stream.into_inner()).await? {
                    ControlFlow::Break(()) => return Ok(()),
                    ControlFlow::Continue(status) => status,
                },
                Err(status) => status,
            };
            if !self.opened || !may_go_on(&status) {
                return Err(status.into());
            }
            self.rest(&status).await;
        }
    }

    /// Reads until the stream breaks off.
    async fn read<M>(
        &mut self,
        mut stream: Streaming<M>,
    ) -> Result<ControlFlow<(), Status>, Failure>
    where
        C: Fn(&M) -> String,
        T: AsyncFnMut(M) -> Result<ControlFlow<()>, Failure>,
    {
        loop {
            let message = match stream.message().await {
                Ok(Some(message)) => message,
                Ok(None) => {
                    return Ok(ControlFlow::Continue(Status::unavailable(
                        "the server ended the stream",
                    )));
                }
                Err(status) => return Ok(ControlFlow::Continue(status)),
            };
            if !self.opened {
                note!("outrider: following; Ctrl-C ends it");
            } else if self.wait != WAITS.0 {
                note!("outrider: going on");
            }
            (self.opened, self.wait) = (true, WAITS.0);
            let cursor = (self.cursor)(&message);
            if (self.told)(message).await?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
            self.place = cursor;
        }
    }

    async fn rest(&mut self, status: &Status) {
        let asked = status_wait(status).filter(|asked| *asked <= WAITS.1);
        let wait = asked.map_or(self.wait, |asked| asked.max(self.wait));
        let why = one_line(&cause::of_status(status));
        note!(
            "outrider: broken off ({why}); going on from the last message in {}",
            humantime::format_duration(wait)
        );
        tokio::time::sleep(wait).await;
        self.wait = (wait * 2).min(WAITS.1);
    }
}

fn status_wait(status: &Status) -> Option<Duration> {
    (!status.details().is_empty()).then(|| from_status(status).retry_after).flatten()
}

/// Whether a retry may succeed: the server was unreachable or overloaded.
fn may_go_on(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable
        | Code::Cancelled
        | Code::Unknown
        | Code::ResourceExhausted
        | Code::DeadlineExceeded => true,
        // A connection that broke in the middle. An error of the server itself has details.
        Code::Internal => status.details().is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use outrider_model::{Error, Reason};
    use outrider_rpc::to_status;

    use super::*;

    #[test]
    fn what_cannot_get_better_is_not_tried_again() {
        for status in [
            Status::unknown("h2"),
            Status::internal("reset"),
            to_status(Error::unavailable("later")),
        ] {
            assert!(may_go_on(&status), "{status:?}");
        }
        for reason in [
            Reason::InvalidCredentials,
            Reason::CursorExpired,
            Reason::NotFound,
            Reason::Internal,
            Reason::InvalidField,
        ] {
            assert!(!may_go_on(&to_status(Error::new(reason, "no"))), "{reason}");
        }
        assert_eq!(
            status_wait(&to_status(Error::unavailable("later"))),
            Some(Duration::from_secs(1))
        );
        assert_eq!(status_wait(&Status::unavailable("tcp")), None);
    }
}
