//! Who waits for the validation of an event.

use outrider_model::Result;
use outrider_shares::{Holder, Turn, Turns};

/// Who waits for the validation of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requester {
    /// A call, which is refused if its caller has used up its share of long work.
    Call(Holder),
    /// A stream, which waits. The number of events that wait in streams is bounded and divided
    /// anyway.
    Stream(Holder),
    /// A large request that has its turn, of which there are few. It must not wait for another turn
    /// of its caller, because all other large requests would wait with it.
    InTurn,
}

impl Requester {
    /// Returns the caller whose turns are used.
    pub fn holder(self) -> Option<Holder> {
        match self {
            Self::Call(holder) | Self::Stream(holder) => Some(holder),
            Self::InTurn => None,
        }
    }

    pub async fn turn(self, of: &Turns) -> Result<Option<Turn>> {
        match self {
            Self::Call(holder) => Ok(Some(of.take(holder).await?)),
            Self::Stream(holder) => Ok(Some(of.wait(holder).await)),
            Self::InTurn => Ok(None),
        }
    }
}
