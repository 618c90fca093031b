//! The times of events. They are for people, but people take differences: within a run they never go back, and
//! never run slower than time does, whatever becomes of the machine's clock.

use std::time::Instant;

use jiff::{SignedDuration, Timestamp};

/// The clock of one process's work on a run.
pub(super) struct Clock {
    last: Timestamp,
    read: Instant,
}

impl Clock {
    /// `last`: the time of the run's newest event; none for a new run.
    pub(super) fn after(last: Option<Timestamp>) -> Self {
        Self { last: last.unwrap_or(Timestamp::UNIX_EPOCH), read: Instant::now() }
    }

    /// The time of the next event.
    pub(super) fn now(&mut self) -> Timestamp {
        let read = Instant::now();
        let passed = SignedDuration::try_from(read - self.read).unwrap_or_default();
        self.last = later(self.last, passed, Timestamp::now());
        self.read = read;
        self.last
    }
}

/// What the machine's clock says, unless it was set back. Set forward it is believed: a laptop may have slept.
fn later(last: Timestamp, passed: SignedDuration, machine: Timestamp) -> Timestamp {
    last.checked_add(passed).unwrap_or(last).max(machine)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_follow_the_machine_s_clock_but_never_back() {
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let passed = SignedDuration::from_secs(2);
        assert_eq!(later(at(1000), passed, at(1002)), at(1002));
        assert_eq!(later(at(1000), passed, at(400)), at(1002), "set back: time goes on");
        assert_eq!(later(at(1000), passed, at(9000)), at(9000), "set forward, or the machine slept");
        assert_eq!(later(at(9000), passed, at(1004)), at(9002), "set right again");
        assert_eq!(later(Timestamp::MAX, passed, at(0)), Timestamp::MAX);
    }

    #[test]
    fn a_run_that_is_taken_up_by_a_machine_that_lags_behind_goes_on_after_its_newest_event() {
        let ahead = Timestamp::now() + SignedDuration::from_hours(5);
        let mut clock = Clock::after(Some(ahead));
        let (first, second) = (clock.now(), clock.now());
        assert!(ahead <= first && first <= second);
        assert!(first < ahead + SignedDuration::from_hours(1));
    }
}
