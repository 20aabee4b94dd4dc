//! How a message gets in: into the mailbox, or past it if its own chain waits here for it.

use std::ptr;
use std::sync::Arc;

use quark_base::ActorId;

use super::Slot;
use crate::actor::Actor;
use crate::chain;
use crate::error::{CallError, Failure};
use crate::guards::Room;
use crate::turn::lend::Lends;
use crate::turn::mailbox::Mailbox;
use crate::turn::word::Snapshot;
use crate::turn::{Hold, Phase, TaskRef};

/// Why a message did not get into the mailbox.
pub(crate) enum Blocked {
    /// For good; this is the caller's error.
    Failed(Failure),
    /// The mailbox is full; the message is still whole.
    Full(TaskRef),
}

impl<A: Actor> Slot<A> {
    /// Puts a message where it will be run: into the mailbox, or past it if its own chain waits for it here.
    pub(crate) fn submit(self: &Arc<Self>, turn: TaskRef) -> Result<(), Blocked> {
        turn.write_down_chain();
        let mut mailbox = self.mailbox.lock();
        let seen = self.word.snapshot();
        let in_use = seen.has_writer() || seen.readers() > 0 || seen.is_spread();
        if in_use && turn.has_callers() {
            match self.comes_back(&turn, &mut mailbox) {
                ComesBack::No => {}
                ComesBack::Reenters if self.word.reenter_shared() => {
                    drop(mailbox);
                    self.begin_taken(turn, Hold::Shared);
                    return Ok(());
                }
                // Its own chain is among the turns that share the actor: behind them it would wait for itself.
                ComesBack::Reenters if self.word.snapshot().is_crowded() => return Err(Blocked::Full(turn)),
                // The chain's turn has just ended.
                ComesBack::Reenters => {}
                ComesBack::Lent { begin } => {
                    drop(mailbox);
                    if begin {
                        self.begin_taken(turn, Hold::Lent);
                    }
                    return Ok(());
                }
                ComesBack::Deadlock => {
                    drop(mailbox);
                    let chain = chain::describe(callers(&turn), self.actor_id());
                    return Err(Blocked::Failed(CallError::Deadlock(chain)));
                }
            }
        }
        // A retired slot is reached by timers of an activation that is gone, and by nobody else.
        let gone = match seen.phase() {
            Phase::Retired => true,
            Phase::Vacant => self.host.is_draining(),
            _ => false,
        };
        if gone || self.host.services.has_stopped() {
            return Err(Blocked::Failed(CallError::Draining(Box::new(self.actor_id()))));
        }
        let mut gives_way = None;
        if mailbox.length >= self.capacity(&mailbox) {
            match self.make_room(&mut mailbox, &turn) {
                Room::None => return Err(Blocked::Full(turn)),
                Room::Behind => {}
                Room::Of(oldest) => gives_way = Some(oldest),
                Room::NotEvenThis => {
                    drop(mailbox);
                    return self.drop_newest(turn);
                }
            }
        }
        let was_empty = mailbox.length == 0;
        mailbox.push(turn);
        let now = was_empty.then(|| self.word.set_queued());
        drop(mailbox);
        if let Some(now) = now {
            self.attend(now);
        }
        if let Some(oldest) = gives_way {
            self.shed(oldest);
        }
        Ok(())
    }

    /// The mailbox has just become non-empty: sees to it that somebody looks at it.
    fn attend(&self, now: Snapshot) {
        match now.phase() {
            Phase::Vacant => self.activate_if_vacant(),
            Phase::Active if !now.has_writer() && self.word.schedule() => self.schedule(),
            // Whoever holds the turn, or ends the (de)activation, finds `QUEUED` set.
            _ => {}
        }
    }

    fn comes_back(&self, turn: &TaskRef, mailbox: &mut Mailbox) -> ComesBack {
        let here = ptr::from_ref(self).addr();
        let mut found = None;
        // No further than to the nearest turn here: a chain that re-enters may be ten thousand turns deep.
        turn.walk_callers(&mut |ancestor, _| {
            found = (ancestor.slot == here).then_some(ancestor);
            found.is_none()
        });
        let Some(ancestor) = found else { return ComesBack::No };
        let lends = mailbox.extra.as_mut().map(|extra| &mut extra.lends);
        if ancestor.exclusive {
            if let Some(begin) = lends.and_then(|lends| lends.admit(ancestor.turn, turn)) {
                return ComesBack::Lent { begin };
            }
            return ComesBack::Deadlock;
        }
        if turn.is_exclusive() {
            return ComesBack::Deadlock;
        }
        let joins = lends.is_some_and(Lends::joins);
        if joins { ComesBack::Lent { begin: true } } else { ComesBack::Reenters }
    }
}

/// The actors whose turns wait for `turn`, innermost first.
pub(super) fn callers(turn: &TaskRef) -> Vec<ActorId> {
    let mut names = Vec::new();
    turn.walk_callers(&mut |_, slot| {
        names.push(slot.id());
        true
    });
    names
}

enum ComesBack {
    /// The call is no part of a chain that waits here.
    No,
    /// Its chain is in a shared turn here, and it wants to share.
    Reenters,
    /// Its chain lent the actor; `begin` if nobody uses it yet, else the message waits for its turn there.
    Lent { begin: bool },
    /// Its chain waits here and does not lend.
    Deadlock,
}
