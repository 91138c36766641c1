//! What happens to objects at rest: bits flip, ends are lost, files are exchanged. Applied to a
//! [`MemBackend`] between two runs; read faults that leave the object whole are in `fault`.

use std::fmt;

use super::{
    super::{MemBackend, ObjectName},
    next_random,
};

/// One kind of damage to one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// The bit of this number changes; bit 0 is the lowest of the first byte.
    FlipBit(u64),
    /// `len` bytes from `offset` read as zero: a lost sector.
    Zero {
        /// First byte.
        offset: u64,
        /// Number of bytes.
        len: u64,
    },
    /// Only so many bytes are left.
    Truncate(u64),
    /// So many bytes are appended, taken from the front of the object (zeros if it is empty).
    Extend(u64),
    /// The object is gone.
    Remove,
}

impl Damage {
    /// A selection that leaves no region out: a bit in each 32nd of the object (where in it,
    /// follows from `seed`) and in the first and last byte, lost sectors, the usual lengths of a
    /// cut-off, a tail, and the loss of the whole. Every item but a lost sector of zeros changes
    /// an object of `len` bytes.
    #[must_use]
    pub fn matrix(len: u64, seed: u64) -> Vec<Self> {
        let bits = len.saturating_mul(8);
        let mut state = seed;
        let mut all = vec![Self::Remove, Self::Extend(1), Self::Extend(4096)];
        for cut in [0, 1, 511, 512, 4095, 4096, len / 2, len.saturating_sub(1)] {
            if cut < len && !all.contains(&Self::Truncate(cut)) {
                all.push(Self::Truncate(cut));
            }
        }
        if bits == 0 {
            return all;
        }
        for offset in [0, len / 2, (len - 1) / 512 * 512] {
            all.push(Self::Zero { offset, len: 512 });
        }
        all.extend([Self::FlipBit(0), Self::FlipBit(bits - 1)]);
        let step = (bits / 32).max(1);
        for start in (0..bits).step_by(usize::try_from(step).unwrap_or(usize::MAX)) {
            let bit = start + next_random(&mut state) % step;
            all.push(Self::FlipBit(bit.min(bits - 1)));
        }
        all
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Damages an object. True if its bytes, or its being there, are different now; a lost sector of
/// zeros changes nothing, and neither does damage to an object that is not there.
#[must_use = "damage that changed nothing tests nothing"]
pub fn damage(store: &MemBackend, name: &ObjectName, what: Damage) -> bool {
    let Some(before) = store.remove(name) else {
        return false;
    };
    let mut bytes = before.as_ref().clone();
    let at = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    match what {
        Damage::Remove => return true,
        Damage::FlipBit(bit) => {
            if let Some(byte) = bytes.get_mut(at(bit / 8)) {
                *byte ^= 1 << (bit % 8);
            }
        }
        Damage::Zero { offset, len } => {
            for byte in bytes.iter_mut().skip(at(offset)).take(at(len)) {
                *byte = 0;
            }
        }
        Damage::Truncate(len) => bytes.truncate(at(len)),
        Damage::Extend(len) => {
            let tail: Vec<u8> = before.iter().copied().cycle().take(at(len)).collect();
            bytes.extend(tail);
            if before.is_empty() {
                bytes.resize(at(len), 0);
            }
        }
    }
    let changed = bytes != *before;
    store.replace(*name, bytes);
    changed
}

/// Exchanges the bytes of two objects. True if that changed anything.
#[must_use = "damage that changed nothing tests nothing"]
pub fn swap(store: &MemBackend, one: &ObjectName, other: &ObjectName) -> bool {
    let objects = store.objects();
    let (Some(first), Some(second)) = (objects.get(one), objects.get(other)) else {
        return false;
    };
    store.replace(*one, second.as_ref().clone());
    store.replace(*other, first.as_ref().clone());
    first != second
}

/// Puts the bytes of `from` in the place of `to`: an old version played back, a copy under a
/// wrong name. True if that changed anything.
#[must_use = "damage that changed nothing tests nothing"]
pub fn copy_over(store: &MemBackend, from: &ObjectName, to: &ObjectName) -> bool {
    let objects = store.objects();
    let Some(bytes) = objects.get(from) else {
        return false;
    };
    store.replace(*to, bytes.as_ref().clone());
    objects.get(to) != Some(bytes)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const NAME: ObjectName = ObjectName::Log(1);

    #[rstest]
    #[case(0)]
    #[case(1)]
    #[case(511)]
    #[case(5000)]
    fn every_item_of_the_matrix_changes_the_object(#[case] len: usize) {
        let bytes: Vec<u8> = (1..=251).cycle().take(len).collect();
        let all = Damage::matrix(u64::try_from(len).unwrap(), 7);
        for what in all {
            let store = MemBackend::new();
            store.replace(NAME, bytes.clone());
            assert!(damage(&store, &NAME, what), "{what}");
            let after = store.objects().get(&NAME).map(|bytes| bytes.to_vec());
            assert_ne!(after.as_ref(), Some(&bytes), "{what}");
        }
    }

    #[test]
    fn damage_that_changes_nothing_says_so() {
        let store = MemBackend::new();
        assert!(!damage(&store, &NAME, Damage::FlipBit(0)));
        store.replace(NAME, vec![0; 4]);
        assert!(!damage(&store, &NAME, Damage::Zero { offset: 1, len: 2 }));
        assert!(!damage(&store, &NAME, Damage::Truncate(4)));
        assert!(!swap(&store, &NAME, &ObjectName::Log(2)));
    }

    #[test]
    fn swapped_objects_have_each_others_bytes() {
        let store = MemBackend::new();
        let other = ObjectName::Log(2);
        store.replace(NAME, vec![1]);
        store.replace(other, vec![2]);
        assert!(swap(&store, &NAME, &other));
        assert_eq!(*store.objects()[&NAME], [2]);
        assert_eq!(*store.objects()[&other], [1]);
        assert!(copy_over(&store, &NAME, &other));
        assert_eq!(*store.objects()[&other], [2]);
    }
}
