use std::time::Duration;

use cdc::{Env as _, Limit, Reader, Record, Sequence};

use crate::failure::Failure;
use crate::output::View;
use crate::session::Session;
use crate::signals::{Signals, Stop};

/// How often a log is looked at for something new.
const LOOK: Duration = Duration::from_millis(50);

/// Prints what is appended to a log after a position and is `wanted`, until somebody asks to stop.
pub(super) async fn follow(
    session: &mut Session,
    signals: &mut Signals,
    reader: &Reader,
    mut after: Sequence,
    mut wanted: impl FnMut(&Record) -> Result<bool, Failure>,
) -> Result<Stop, Failure> {
    let view = View { of: reader.spec().id.clone(), placed: false };
    loop {
        let records = match signals.until(reader.after(after, Limit::default())).await {
            Ok(records) => records?,
            Err(stop) => return Ok(stop),
        };
        for record in &records {
            after = record.sequence;
            if wanted(record)? {
                session.out.record(record, &view)?;
            }
        }
        session.out.flush()?;
        if records.is_empty()
            && let Err(stop) = signals.until(session.env.sleep(LOOK)).await
        {
            return Ok(stop);
        }
    }
}
