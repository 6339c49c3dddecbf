//! Which unit a cache gives up first.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::fmt::Debug;

/// Decides which unit leaves a cache that is full. Units are numbers.
pub trait CachePolicy: Debug + Send {
    /// `unit` came in or was used.
    fn used(&mut self, unit: u32);

    /// `unit` left.
    fn removed(&mut self, unit: u32);

    /// The unit to give up first of those that `may` go.
    fn victim(&self, may: &dyn Fn(u32) -> bool) -> Option<u32>;
}

/// No unit.
const NONE: u32 = u32::MAX;

/// Gives up the unit that was not used for the longest time.
#[derive(Debug, Default)]
pub struct Lru {
    /// Of every unit: the one used before it, and the one used after it.
    links: Vec<Link>,
    oldest: Option<u32>,
    newest: Option<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Link {
    before: u32,
    after: u32,
    listed: bool,
}

impl Lru {
    /// A policy that knows no unit yet.
    pub fn new() -> Self {
        Self::default()
    }

    fn link(&mut self, unit: Option<u32>) -> Option<&mut Link> {
        unit.map(|unit| &mut self.links[unit as usize])
    }
}

impl CachePolicy for Lru {
    fn used(&mut self, unit: u32) {
        if self.newest == Some(unit) {
            return;
        }
        self.removed(unit);
        if self.links.len() <= unit as usize {
            self.links.resize(unit as usize + 1, Link { before: NONE, after: NONE, listed: false });
        }
        let before = self.newest.replace(unit);
        if let Some(link) = self.link(before) {
            link.after = unit;
        }
        self.links[unit as usize] = Link { before: before.unwrap_or(NONE), after: NONE, listed: true };
        self.oldest.get_or_insert(unit);
    }

    fn removed(&mut self, unit: u32) {
        let Some(link) = self.links.get_mut(unit as usize).filter(|link| link.listed) else { return };
        link.listed = false;
        let known = |unit| (unit != NONE).then_some(unit);
        let (before, after) = (known(link.before), known(link.after));
        match self.link(before) {
            Some(link) => link.after = after.unwrap_or(NONE),
            None => self.oldest = after,
        }
        match self.link(after) {
            Some(link) => link.before = before.unwrap_or(NONE),
            None => self.newest = before,
        }
    }

    fn victim(&self, may: &dyn Fn(u32) -> bool) -> Option<u32> {
        let mut next = self.oldest;
        while let Some(unit) = next {
            if may(unit) {
                return Some(unit);
            }
            next = Some(self.links[unit as usize].after).filter(|unit| *unit != NONE);
        }
        None
    }
}

/// Gives up the unit that was used least often, and of equal ones the one not used for the longest time.
///
/// Counts age: a unit's rank is its uses plus the rank of the unit that left last, so what was hot long ago leaves
/// (LFU with dynamic aging; Arlitt et al. 2000, "Evaluating content management techniques for Web proxy caches").
#[derive(Debug, Default)]
pub struct Lfu {
    /// Of every unit in the cache: its uses, and what it is ranked by.
    counts: Vec<Option<(u64, Rank)>>,
    ranks: BTreeSet<(Rank, u32)>,
    /// Uses of all units.
    clock: u64,
    /// Rank of the unit that left last.
    age: u64,
}

/// Uses and age together, then the time of the last use.
type Rank = (u64, u64);

impl Lfu {
    /// A policy that knows no unit yet.
    pub fn new() -> Self {
        Self::default()
    }
}

impl CachePolicy for Lfu {
    fn used(&mut self, unit: u32) {
        let index = unit as usize;
        if self.counts.len() <= index {
            self.counts.resize(index + 1, None);
        }
        let mut uses = 1;
        if let Some((before, rank)) = self.counts[index] {
            self.ranks.remove(&(rank, unit));
            uses += before;
        }
        self.clock += 1;
        let rank = (uses + self.age, self.clock);
        self.counts[index] = Some((uses, rank));
        self.ranks.insert((rank, unit));
    }

    fn removed(&mut self, unit: u32) {
        if let Some((_, rank)) = self.counts.get_mut(unit as usize).and_then(Option::take) {
            self.ranks.remove(&(rank, unit));
            self.age = rank.0;
        }
    }

    fn victim(&self, may: &dyn Fn(u32) -> bool) -> Option<u32> {
        self.ranks.iter().map(|(_, unit)| *unit).find(|unit| may(*unit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    /// The units that leave a cache of `room` units while these are used.
    fn leaving(mut policy: impl CachePolicy, room: usize, uses: &[u32]) -> Vec<u32> {
        let (mut inside, mut left) = (Vec::new(), Vec::new());
        for unit in uses {
            if !inside.contains(unit) {
                if inside.len() == room {
                    let victim = policy.victim(&|u| inside.contains(&u)).expect("a full cache");
                    policy.removed(victim);
                    inside.retain(|u| *u != victim);
                    left.push(victim);
                }
                inside.push(*unit);
            }
            policy.used(*unit);
        }
        left
    }

    #[test]
    fn lru_gives_up_what_was_used_longest_ago() {
        assert_eq!(leaving(Lru::new(), 3, &[0, 1, 2, 0, 3, 1, 4]), [1, 2, 0]);
        let mut lru = Lru::new();
        [3, 1, 2, 3].into_iter().for_each(|unit| lru.used(unit));
        assert_eq!(
            (lru.victim(&|_| true), lru.victim(&|u| u != 1), lru.victim(&|_| false)),
            (Some(1), Some(2), None)
        );
        [1, 2, 3, 7].into_iter().for_each(|unit| lru.removed(unit));
        assert_eq!(lru.victim(&|_| true), None);
        lru.used(2);
        assert_eq!(lru.victim(&|_| true), Some(2));
    }

    #[test]
    fn lfu_keeps_what_is_used_often_until_it_is_not() {
        assert_eq!(leaving(Lfu::new(), 2, &[0, 0, 0, 1, 2, 3, 0, 4]), [1, 2, 3]);
        // 0 was hot once: it leaves when enough others have come and gone.
        let mut uses = vec![0; 5];
        uses.extend((1..20).flat_map(|unit| [unit, unit]));
        assert!(leaving(Lfu::new(), 2, &uses).contains(&0));
    }
}
