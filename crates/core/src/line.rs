//! A waiting line: first come, first served, and whoever gives up leaves from the middle at once.
//!
//! A linked list in a slab. A place is named by a number, which stays its owner's until he removes it: `call` takes the
//! first one out of the line and leaves him his place, where he finds what he was given. So nothing here is searched.

/// Nobody.
const END: u32 = u32::MAX;

struct Spot<T> {
    held: Option<T>,
    before: u32,
    /// Of a place that is not taken: the next such one.
    after: u32,
    in_line: bool,
}

/// A waiting line.
pub struct Line<T> {
    spots: Vec<Spot<T>>,
    first: u32,
    last: u32,
    /// The first place that is not taken.
    spare: u32,
    waiting: usize,
    taken: usize,
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self { spots: Vec::new(), first: END, last: END, spare: END, waiting: 0, taken: 0 }
    }
}

impl<T> Line<T> {
    /// How many are in line.
    pub fn len(&self) -> usize {
        self.waiting
    }

    /// Whether nobody is in line.
    pub fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// Comes to its end. The place, which the caller removes some time.
    pub fn join(&mut self, held: T) -> u32 {
        let before = self.last;
        let spot = Spot { held: Some(held), before, after: END, in_line: true };
        let place = if self.spare == END {
            self.spots.push(spot);
            (self.spots.len() - 1) as u32
        } else {
            let place = self.spare;
            self.spare = core::mem::replace(&mut self.spots[place as usize], spot).after;
            place
        };
        if before == END {
            self.first = place
        } else {
            self.spots[before as usize].after = place
        }
        self.last = place;
        self.waiting += 1;
        self.taken += 1;
        place
    }

    /// Takes the first one out of the line; his place stays his.
    pub fn call(&mut self) -> Option<&mut T> {
        let place = self.first;
        if place == END {
            return None;
        }
        self.unlink(place);
        self.spots[place as usize].held.as_mut()
    }

    /// Takes everyone out of the line of whom `chosen` says so.
    pub fn call_if(&mut self, mut chosen: impl FnMut(&mut T) -> bool) {
        let mut place = self.first;
        while place != END {
            let spot = &mut self.spots[place as usize];
            let after = spot.after;
            if spot.held.as_mut().is_some_and(&mut chosen) {
                self.unlink(place);
            }
            place = after;
        }
    }

    /// Gives a place back, and leaves the line if that has not been. What was there.
    pub fn remove(&mut self, place: u32) -> Option<T> {
        if self.spots[place as usize].in_line {
            self.unlink(place);
        }
        let spot = &mut self.spots[place as usize];
        let held = spot.held.take()?;
        spot.after = self.spare;
        self.spare = place;
        self.taken -= 1;
        if self.taken == 0 && self.spots.len() > 64 {
            // A crowd has gone: so does its memory.
            *self = Self::default();
        }
        Some(held)
    }

    /// What every place holds, in no order: for the collector.
    pub fn held(&self) -> impl Iterator<Item = &T> {
        self.spots.iter().filter_map(|spot| spot.held.as_ref())
    }

    /// Everything that a place holds, in no order.
    pub fn each(&mut self, mut look: impl FnMut(&mut T)) {
        for spot in &mut self.spots {
            spot.held.as_mut().map(&mut look);
        }
    }

    fn unlink(&mut self, place: u32) {
        let spot = &mut self.spots[place as usize];
        spot.in_line = false;
        let (before, after) = (spot.before, spot.after);
        if before == END {
            self.first = after
        } else {
            self.spots[before as usize].after = after
        }
        if after == END {
            self.last = before
        } else {
            self.spots[after as usize].before = before
        }
        self.waiting -= 1;
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    #[test]
    fn a_line_is_what_a_list_would_be_through_ten_thousand_steps() {
        let (mut line, mut model, mut called) = (Line::default(), VecDeque::new(), Vec::new());
        let (mut random, mut next) = (1u64, 0u32);
        for _ in 0..10_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            match (random >> 33) % 4 {
                0 | 1 => {
                    model.push_back((line.join(next), next));
                    next += 1;
                }
                2 => {
                    let first = model.pop_front();
                    assert_eq!(line.call().copied(), first.map(|(_, value)| value));
                    called.extend(first);
                }
                _ => {
                    let of = if (random >> 40) % 2 == 0 { called.pop() } else { None };
                    let of = of.or_else(|| model.remove((random >> 42) as usize % model.len().max(1)));
                    if let Some((place, value)) = of {
                        assert_eq!(line.remove(place), Some(value));
                    }
                }
            }
            assert_eq!(line.len(), model.len());
        }
    }

    #[test]
    fn a_crowd_that_has_gone_keeps_no_memory() {
        let mut line = Line::default();
        let places: Vec<u32> = (0..1000).map(|value| line.join(value)).collect();
        for place in places {
            assert!(line.remove(place).is_some());
        }
        assert_eq!(line.spots.capacity(), 0);
    }

    #[test]
    fn the_chosen_are_called_and_the_others_stay_in_order() {
        let mut line = Line::default();
        for value in 0..6 {
            line.join(value);
        }
        line.call_if(|value| *value % 2 == 0);
        let left: Vec<i32> = core::iter::from_fn(|| line.call().copied()).collect();
        assert_eq!(left, [1, 3, 5]);
    }
}
