//! Parsers of untrusted text, for `outrider-fuzz`. This is not a part of the crate's interface.

use outrider_model::{ProjectId, Result};
use outrider_store::LogKind;

use crate::tail::Cursors;

/// Reads the cursor of a tail of this project and database, and writes it back.
pub fn reread_cursor(
    text: &str,
    of_events: bool,
    project: ProjectId,
    identity: i64,
) -> Result<String> {
    let kind = if of_events { LogKind::Events } else { LogKind::Deliveries };
    let cursors = Cursors { kind, project, identity };
    cursors.read(text).map(|place| cursors.write(place))
}
