use std::time::Duration;

use super::{Event, World};
use crate::failure::Broken;
use crate::object::Object;
use crate::plan::{Crash, CrashPoint, Side};
use crate::{Mutant, Rewind};

impl World {
    fn object(&mut self, side: Side) -> &mut Object {
        match side {
            Side::Child => &mut self.child.object,
            Side::Parent => &mut self.parent.object,
        }
    }

    pub(super) fn begin_crash(&mut self, crash: Crash) -> Result<(), Broken> {
        let Crash { side, point, down, .. } = crash;
        if self.object(side).log().is_none() {
            return Ok(());
        }
        *self.down_mut(side) = Some(down);
        if point == CrashPoint::Idle {
            self.object(side).crash()?;
            return self.crashed(side);
        }
        self.object(side).arm(Some(point));
        Ok(())
    }

    const fn down_mut(&mut self, side: Side) -> &mut Option<Duration> {
        let [child, parent] = &mut self.down;
        match side {
            Side::Child => child,
            Side::Parent => parent,
        }
    }

    /// The object is gone, and with it all that was only in memory.
    pub(super) fn crashed(&mut self, side: Side) -> Result<(), Broken> {
        let now = self.now();
        self.crashes += 1;
        let down = self.down_mut(side).take().unwrap_or_default();
        self.trace.fault(now, format_args!("{side:?} crashed, life {} in {down:?}", self.object_life(side)));
        match side {
            Side::Child => {
                self.child.sender = None;
                self.wake = None;
                self.rewind()?;
            }
            Side::Parent => {
                self.parent.forget();
                self.is_serving = false;
            }
        }
        self.schedule.after(down, Event::Reopen(side));
        Ok(())
    }

    const fn object_life(&self, side: Side) -> u32 {
        match side {
            Side::Child => self.child.object.life(),
            Side::Parent => self.parent.object.life(),
        }
    }

    /// Keeps a copy of the dead child's files, or puts the one of an earlier crash in their place.
    fn rewind(&mut self) -> Result<(), Broken> {
        let wanted = self.setup.rewind == Rewind::Once || self.setup.mutant == Some(Mutant::RewoundChild);
        if !wanted || self.rewound {
            return Ok(());
        }
        match self.copied {
            None => {
                self.child.object.keep_copy()?;
                self.copied = Some(self.checkers.written());
            }
            Some(copied) if self.checkers.taken() > copied => {
                self.child.object.restore_copy()?;
                self.rewound = true;
                self.trace.fault(self.now(), format_args!("the child is put back to {copied}"));
                if self.setup.rewind == Rewind::Once {
                    self.checkers.rewind(copied);
                }
            }
            Some(_) => {}
        }
        Ok(())
    }

    pub(super) fn reopen(&mut self, side: Side) -> Result<(), Broken> {
        self.trace.step(self.now(), format_args!("{side:?} opens"));
        self.object(side).open()?;
        match side {
            Side::Child => {
                self.checkers.child_reopened();
                self.check_child()?;
                self.child.link()
            }
            Side::Parent => {
                self.checkers.parent_reopened();
                self.check_parent()
            }
        }
    }
}
