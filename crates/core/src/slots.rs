//! Tokens: a slot and its generation in the 64 bits that a poller carries.
//!
//! The generation counts the insertions into the whole table, so that a token from before finds nothing in a slot that
//! is used again: a stale event is dropped, a late cancel reaches nobody. It has 32 bits: a token could be mistaken
//! only by somebody who kept it over exactly a multiple of four thousand million insertions. Because it does not live
//! in the slot, an empty table gives its memory back.

/// Slot in the low half, generation (never 0) in the high half. 0 is no token, `u64::MAX` is kept for the poller.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct Token(pub u64);

impl Token {
    /// The token that no slot ever has.
    pub const NONE: Self = Self(0);

    /// No table has so many places.
    const SOCKET: u64 = 1 << 31;

    /// The same place in the loop's other table, which no token of the first table names.
    pub(crate) fn of_socket(self) -> Self {
        Self(self.0 | Self::SOCKET)
    }

    /// What [`Self::of_socket`] was made from; None for a token of the first table.
    pub(crate) fn in_table(self) -> Option<Self> {
        (self.0 & Self::SOCKET != 0 && self.generation() != u32::MAX).then_some(Self(self.0 & !Self::SOCKET))
    }

    fn new(index: u32, generation: u32) -> Self {
        Self(u64::from(generation) << 32 | u64::from(index))
    }

    pub(crate) fn index(self) -> usize {
        (self.0 & 0xffff_ffff) as usize
    }

    fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

/// A table of values by token.
pub struct Slots<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    generation: u32,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { slots: Vec::new(), free: Vec::new(), generation: 0 }
    }
}

/// An empty table with room for more than this many slots gives its memory back.
const KEEP: usize = 1024;

impl<T> Slots<T> {
    /// Puts a value in, made from the token it will have.
    pub fn insert(&mut self, make: impl FnOnce(Token) -> T) -> Token {
        // Neither 0 nor u32::MAX, so that no token is ever 0 or u64::MAX.
        self.generation = if self.generation >= u32::MAX - 1 { 1 } else { self.generation + 1 };
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, value: None });
            (self.slots.len() - 1) as u32
        });
        let token = Token::new(index, self.generation);
        self.slots[index as usize] = Slot { generation: self.generation, value: Some(make(token)) };
        token
    }

    /// The value, if the token is still good.
    pub fn get(&self, token: Token) -> Option<&T> {
        let slot = self.slots.get(token.index())?;
        if slot.generation == token.generation() { slot.value.as_ref() } else { None }
    }

    /// The value, if the token is still good.
    pub fn get_mut(&mut self, token: Token) -> Option<&mut T> {
        let slot = self.slots.get_mut(token.index())?;
        if slot.generation == token.generation() { slot.value.as_mut() } else { None }
    }

    /// Takes the value out and frees the slot.
    pub fn remove(&mut self, token: Token) -> Option<T> {
        let slot = self.slots.get_mut(token.index())?;
        if slot.generation != token.generation() {
            return None;
        }
        let value = slot.value.take()?;
        self.free.push(token.index() as u32);
        if self.is_empty() && self.slots.len() > KEEP {
            self.slots = Vec::new();
            self.free = Vec::new();
        }
        Some(value)
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every value with its token.
    pub fn iter(&self) -> impl Iterator<Item = (Token, &T)> {
        self.slots.iter().enumerate().filter_map(|(index, slot)| {
            slot.value.as_ref().map(|value| (Token::new(index as u32, slot.generation), value))
        })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_token_of_a_freed_slot_finds_nothing_even_when_the_slot_is_used_again() {
        let mut slots = Slots::default();
        let old = slots.insert(|_| "old");
        assert_eq!(slots.remove(old), Some("old"));
        let new = slots.insert(|_| "new");
        assert_eq!(old.index(), new.index());
        assert_eq!(slots.get(old), None);
        assert_eq!(slots.remove(old), None);
        assert_eq!(slots.get(new), Some(&"new"));
    }

    #[test]
    fn a_token_from_before_an_empty_table_gave_its_memory_back_finds_nothing_after() {
        let mut slots = Slots::default();
        let tokens: Vec<_> = (0..2 * KEEP).map(|n| slots.insert(|_| n)).collect();
        for token in &tokens {
            assert!(slots.remove(*token).is_some());
        }
        assert_eq!(slots.slots.capacity(), 0);
        let new = slots.insert(|_| 0);
        assert_eq!(new.index(), tokens[0].index());
        assert_eq!(slots.get(tokens[0]), None);
    }
}
