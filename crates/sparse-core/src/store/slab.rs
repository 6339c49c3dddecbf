//! Memory in rooms of equal size.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use std::io;
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard};

use crate::memory::{Memory, huge, lock};

/// Rooms of equal size, each in parts: that of part 0 of all rooms comes first, then that of part 1, and so on, so that a
/// part is a matrix with a row per room.
///
/// Rooms are written while nobody reads any, and given back when their [`Place`] is dropped.
pub struct Slab {
    /// Bytes of each part of a room.
    parts: Vec<usize>,
    rooms: RwLock<Rooms>,
    free: Mutex<Free>,
}

/// The memory of every part.
struct Rooms(Vec<Memory>);

/// Rooms that are not taken.
struct Free {
    /// Rooms that were given back.
    back: Vec<u32>,
    /// Rooms that were never taken begin here.
    fresh: u32,
    all: u32,
}

/// A room that is taken.
#[derive(Debug)]
pub struct Place {
    slab: Arc<Slab>,
    number: u32,
}

impl Place {
    /// Number of the room.
    pub fn number(&self) -> u32 {
        self.number
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.slab.free().back.push(self.number);
    }
}

impl fmt::Debug for Slab {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slab").field("parts", &self.parts).finish_non_exhaustive()
    }
}

impl Slab {
    /// `rooms` rooms with parts of so many bytes. Rooms that were never written take no memory where the system gives it by
    /// pages.
    ///
    /// # Errors
    /// When the system does not give so much memory.
    pub fn new(parts: Vec<usize>, rooms: u32) -> io::Result<Self> {
        let rooms = rooms.max(1);
        let memory = parts.iter().map(|bytes| huge(bytes * rooms as usize)).collect::<Result<_, _>>()?;
        let free = Free { back: Vec::new(), fresh: 0, all: rooms };
        Ok(Self { parts, rooms: RwLock::new(Rooms(memory)), free: Mutex::new(free) })
    }

    /// Bytes of a room.
    pub fn room_bytes(&self) -> usize {
        self.parts.iter().sum()
    }

    /// Keeps the system from paging the rooms out, all of which take memory from then on. Rooms that come later, when the
    /// memory grows, are not locked.
    ///
    /// # Errors
    /// When the system cannot, or does not allow this program so much.
    pub fn lock(&self) -> io::Result<()> {
        let rooms = self.rooms.read().unwrap_or_else(PoisonError::into_inner);
        rooms.0.iter().try_for_each(lock)
    }

    fn free(&self) -> std::sync::MutexGuard<'_, Free> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts records, whose parts follow each other, into a room each. The memory grows when all rooms are taken.
    ///
    /// # Errors
    /// When the system does not give more memory.
    ///
    /// # Panics
    /// If a record has another length than a room.
    pub fn put<'a>(self: &Arc<Self>, records: impl Iterator<Item = &'a [u8]>) -> io::Result<Vec<Place>> {
        let mut rooms = self.rooms.write().unwrap_or_else(PoisonError::into_inner);
        let put = |record: &'a [u8]| {
            assert_eq!(record.len(), self.room_bytes(), "bytes of a record");
            let number = self.take(&mut rooms)?;
            let (mut rest, place) = (record, Place { slab: Arc::clone(self), number });
            for (memory, bytes) in rooms.0.iter_mut().zip(&self.parts) {
                let (part, after) = rest.split_at(*bytes);
                memory[number as usize * bytes..][..*bytes].copy_from_slice(part);
                rest = after;
            }
            Ok(place)
        };
        records.map(put).collect()
    }

    /// Takes a room.
    fn take(&self, rooms: &mut Rooms) -> io::Result<u32> {
        let mut free = self.free();
        if let Some(number) = free.back.pop() {
            return Ok(number);
        }
        if free.fresh == free.all {
            let all = free.all.saturating_add((free.all / 8).max(64));
            let grown = |(memory, bytes): (&Memory, &usize)| {
                let mut grown = huge(bytes * all as usize)?;
                grown[..bytes * free.all as usize].copy_from_slice(&memory[..bytes * free.all as usize]);
                Ok(grown)
            };
            let grown: io::Result<_> = rooms.0.iter().zip(&self.parts).map(grown).collect();
            (rooms.0, free.all) = (grown?, all);
        }
        free.fresh += 1;
        Ok(free.fresh - 1)
    }

    /// The rooms, to be read.
    pub(crate) fn read(&self) -> SlabRef<'_> {
        SlabRef(self.rooms.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The rooms of a slab: nothing is written while this exists.
pub(crate) struct SlabRef<'a>(RwLockReadGuard<'a, Rooms>);

impl SlabRef<'_> {
    /// Part `i` of all rooms.
    pub(crate) fn part(&self, i: usize) -> &[u8] {
        &self.0.0[i]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn rooms_are_taken_again_and_grow() {
        let slab = Arc::new(Slab::new(vec![2, 3], 2).unwrap());
        assert_eq!(slab.room_bytes(), 5);
        let put = |record: &[u8; 5]| slab.put([&record[..]].into_iter()).unwrap().remove(0);
        let (a, b) = (put(b"aaAAA"), put(b"bbBBB"));
        assert_eq!((a.number(), b.number()), (0, 1));
        assert_eq!((&slab.read().part(0)[..4], &slab.read().part(1)[..6]), (&b"aabb"[..], &b"AAABBB"[..]));
        drop(a);
        assert_eq!(put(b"ccCCC").number(), 0);
        let places: Vec<Place> = (0..5).map(|_| put(b"ddDDD")).collect();
        assert_eq!(places.iter().map(Place::number).collect::<Vec<_>>(), [0, 2, 3, 4, 5]);
        assert_eq!(&slab.read().part(1)[..9], b"DDDBBBDDD");
        assert!(slab.free().all > 6);
    }
}
