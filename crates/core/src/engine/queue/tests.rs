//! The laws of the queue: no limit is passed, room is never left where someone could use it, and
//! what it costs doesn't grow with how many wait.

use proptest::prelude::*;

use super::{NodeId, Place, Queue};

const HOSTS: u32 = 4;
const KINDS: u32 = 3;

/// What the queue must hold to, told plainly: everything is looked at every time.
struct Model {
    limit: usize,
    per_host: usize,
    kinds: Vec<usize>,
    places: Vec<Place>,
    waiting: Vec<NodeId>,
    working: Vec<NodeId>,
}

impl Model {
    fn used(&self, of: impl Fn(Place) -> bool) -> usize {
        self.working.iter().filter(|node| of(self.places[**node as usize])).count()
    }

    fn fits(&self, node: NodeId) -> bool {
        let Place { host, kind } = self.places[node as usize];
        self.working.len() < self.limit
            && (host == 0 || self.used(|place| place.host == host) < self.per_host)
            && (kind == 0 || self.used(|place| place.kind == kind) < self.kinds[kind as usize - 1])
    }
}

#[derive(Debug, Clone)]
enum Act {
    Push,
    Pop,
    Release(usize),
    /// Taken over, such as an attempt that was found begun.
    Take,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => Just(Act::Push),
        4 => Just(Act::Pop),
        3 => any::<usize>().prop_map(Act::Release),
        1 => Just(Act::Take),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_limit_is_passed_and_no_room_is_left_that_someone_waits_for(
        limit in 1..8usize,
        per_host in 1..4usize,
        kinds in prop::collection::vec(1..4usize, KINDS as usize),
        places in prop::collection::vec((0..=HOSTS, 0..=KINDS), 1..40),
        acts in prop::collection::vec(act(), 0..200),
    ) {
        let places: Vec<Place> = places.into_iter().map(|(host, kind)| Place { host, kind }).collect();
        let mut queue = Queue::new(limit, per_host, &kinds, &places);
        let mut model =
            Model { limit, per_host, kinds, places, waiting: Vec::new(), working: Vec::new() };
        let mut fresh = 0..model.places.len() as NodeId;
        for act in acts {
            match act {
                Act::Push => {
                    let Some(node) = fresh.next() else { continue };
                    queue.push(node);
                    model.waiting.push(node);
                }
                Act::Take => {
                    let Some(node) = fresh.next() else { continue };
                    queue.take(node);
                    model.working.push(node);
                }
                Act::Pop => match queue.pop() {
                    Some(node) => {
                        let at = model.waiting.iter().position(|waiting| *waiting == node);
                        prop_assert!(at.is_some(), "{node} was not waiting");
                        prop_assert!(model.fits(node), "{node} doesn't fit");
                        model.waiting.remove(at.unwrap());
                        model.working.push(node);
                    }
                    None => {
                        let left = model.waiting.iter().find(|node| model.fits(**node));
                        prop_assert!(left.is_none(), "{left:?} would fit");
                    }
                },
                Act::Release(which) => {
                    if model.working.is_empty() {
                        continue;
                    }
                    let node = model.working.swap_remove(which % model.working.len());
                    queue.release(node);
                }
            }
        }
        // Let go on, everyone gets a turn.
        loop {
            while let Some(node) = queue.pop() {
                model.waiting.retain(|waiting| *waiting != node);
                model.working.push(node);
            }
            let Some(node) = model.working.pop() else { break };
            queue.release(node);
        }
        prop_assert!(model.waiting.is_empty(), "{:?} never got a turn", model.waiting);
    }

    #[test]
    fn what_it_costs_does_not_grow_with_how_many_wait(
        per_host in 1..4usize,
        kinds in prop::collection::vec(1..4usize, KINDS as usize),
        places in prop::collection::vec((0..=HOSTS, 0..=KINDS), 2000),
        releases in prop::collection::vec(any::<usize>(), 2000),
    ) {
        let places: Vec<Place> = places.into_iter().map(|(host, kind)| Place { host, kind }).collect();
        let mut queue = Queue::new(64, per_host, &kinds, &places);
        for node in 0..places.len() as NodeId {
            queue.push(node);
        }
        let mut working = Vec::new();
        for which in releases {
            while let Some(node) = queue.pop() {
                working.push(node);
            }
            queue.release(working.swap_remove(which % working.len()));
        }
        // To be pushed, started and released: a step for each kind, and a few more.
        let most = places.len() as u64 * 4 * u64::from(KINDS + 2);
        prop_assert!(queue.looked <= most, "{} looks for {} nodes", queue.looked, places.len());
    }
}

#[test]
fn without_limits_it_is_first_come_first_served() {
    let mut queue = Queue::new(2, 8, &[], &[Place { host: 0, kind: 0 }; 4]);
    (0..4).for_each(|node| queue.push(node));
    assert_eq!((queue.pop(), queue.pop(), queue.pop()), (Some(0), Some(1), None));
    queue.release(0);
    assert_eq!((queue.pop(), queue.pop()), (Some(2), None));
}
