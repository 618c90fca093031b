//! The way back: which tasks may be taken back, and how each goes. A task is free to be taken back
//! once nothing that comes after it, directly or through others, has anything left of this run.

use std::sync::Arc;

use super::state::{Cell, Illegal, RunState, Step, TaskState};
use super::{Event, NodeId, Shape, Successors};

/// What is still in the way of each node. Kept up to date at a cost in proportion to the edges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Backward {
    before: Successors,
    /// How many of the edges from a node lead to where something is left.
    blocked: Vec<u32>,
    /// Tasks of which something is left.
    left: usize,
    /// Something was taken back or kept: the run can't go forward any more.
    turned: bool,
}

impl Cell {
    /// Whether something of it may be left on the hosts.
    fn is_left(self) -> bool {
        self.begun && !matches!(self.state, TaskState::Undone | TaskState::Kept)
    }

    /// Whether it may be taken back as far as it itself goes: nothing of it is at work or unknown.
    fn is_settled(self) -> bool {
        use TaskState::{Intended, UndoUnknown, Undoing, Unknown};
        !matches!(self.state, Intended | Unknown | Undoing | UndoUnknown)
    }
}

impl Backward {
    fn new(shape: &Shape, cells: &[Cell]) -> Self {
        let before = shape.reversed();
        let mut blocked = vec![0u32; cells.len()];
        // From the last nodes to the first: each is looked at once all after it are known.
        let mut waiting: Vec<u32> =
            (0..shape.len() as NodeId).map(|node| shape.after(node).len() as u32).collect();
        let mut known: Vec<NodeId> =
            (0..shape.len() as NodeId).filter(|&node| waiting[node as usize] == 0).collect();
        while let Some(node) = known.pop() {
            let holds = cells[node as usize].is_left() || blocked[node as usize] > 0;
            for &earlier in before.of(node) {
                blocked[earlier as usize] += u32::from(holds);
                waiting[earlier as usize] -= 1;
                if waiting[earlier as usize] == 0 {
                    known.push(earlier);
                }
            }
        }
        let left = cells.iter().filter(|cell| cell.is_left()).count();
        Self { before, blocked, left, turned: false }
    }

    /// Nothing is left of a node: tells who is free by that.
    fn release(&mut self, node: NodeId, cells: &[Cell], free: &mut Vec<NodeId>) {
        self.left -= 1;
        let mut gone = vec![node];
        while let Some(node) = gone.pop() {
            for &earlier in self.before.of(node) {
                self.blocked[earlier as usize] -= 1;
                if self.blocked[earlier as usize] > 0 {
                    continue;
                }
                let cell = cells[earlier as usize];
                match (cell.is_left(), cell.is_settled()) {
                    (true, true) => free.push(earlier),
                    (true, false) => {}
                    (false, _) => gone.push(earlier),
                }
            }
        }
    }
}

impl RunState {
    /// True from the start of an undo on, until the run is resumed where that is still possible.
    pub fn undoing(&self) -> bool {
        self.back.is_some()
    }

    /// True once anything was taken back or kept: the run can only be taken back further.
    pub fn turned_back(&self) -> bool {
        self.back.as_ref().is_some_and(|back| back.turned)
    }

    /// Whether an attempt at the task was ever begun: something of it may be there.
    pub fn begun(&self, node: NodeId) -> bool {
        self.cells[node as usize].begun
    }

    /// Whether a task can be taken back (or kept) next: it was begun, and nothing after it is left.
    pub fn can_undo(&self, node: NodeId) -> bool {
        let cell = self.cells[node as usize];
        let free = self.back.as_ref().is_some_and(|back| back.blocked[node as usize] == 0);
        free && cell.is_left() && cell.is_settled()
    }

    /// True where an undo was started and nothing is left to take back.
    pub fn all_undone(&self) -> bool {
        self.back.as_ref().is_some_and(|back| back.left == 0)
    }

    /// Turns round. `free` gets the tasks that can be taken back first.
    pub(super) fn turn(&mut self, free: &mut Vec<NodeId>) {
        let turned = self.turned_back();
        let shape = Arc::clone(&self.shape);
        self.back = Some(Backward { turned, ..Backward::new(&shape, &self.cells) });
        free.extend((0..shape.len() as NodeId).filter(|&node| self.can_undo(node)));
    }

    /// What an event of an undo does to a task.
    pub(super) fn step_back(&self, event: &Event, node: NodeId) -> Step {
        use TaskState::{Kept, UndoFailed, UndoUnknown, Undoing, Undone};
        let Cell { state, attempt: last, .. } = self.cells[node as usize];
        let under_way = |attempt: &u32| matches!(state, Undoing | UndoUnknown) && *attempt == last;
        let next_attempt = |attempt: &u32| self.can_undo(node) && *attempt == last + 1;
        let (what, allowed, next, attempt) = match event {
            Event::UndoIntended { attempt, .. } => ("an undo", next_attempt(attempt), Undoing, *attempt),
            Event::TaskUndone { attempt, .. } => ("the undo's result", under_way(attempt), Undone, last),
            Event::UndoFailed { attempt, .. } => {
                let allowed = under_way(attempt) || next_attempt(attempt);
                ("the undo's failure", allowed, UndoFailed, *attempt)
            }
            Event::UndoUnknown { attempt, .. } => {
                ("losing sight of the undo", under_way(attempt), UndoUnknown, last)
            }
            Event::UndoNotDone { attempt, .. } => ("settling the undo", under_way(attempt), UndoFailed, last),
            _ => ("keeping it", self.can_undo(node), Kept, last),
        };
        Step { what, allowed, next, attempt }
    }

    /// After a task's event on the way back: who is free now. Only an undo that may be made again at
    /// once is told of again.
    pub(super) fn after_step_back(&mut self, event: &Event, node: NodeId, free: &mut Vec<NodeId>) {
        let cell = self.cells[node as usize];
        let of_undo = event.is_of_undo();
        let Some(back) = &mut self.back else { return };
        back.turned |= of_undo;
        match (cell.is_left(), event) {
            (false, _) if of_undo => back.release(node, &self.cells, free),
            (true, Event::UndoFailed { retry_in_ms: None, .. }) => {}
            _ if self.can_undo(node) => free.push(node),
            _ => {}
        }
    }

    pub(super) fn expect_forward(&self, event: &'static str) -> Result<(), Illegal> {
        if self.turned_back() { Err(Illegal::Turned { event }) } else { Ok(()) }
    }
}
