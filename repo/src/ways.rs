//! Past the page cache or through it: which is faster shows by trying.
//!
//! Where a disk is fast, filling fresh pages costs more than it does, and direct I/O wins. Where it
//! is slow, or behind a host that takes requests one by one, the page cache collects writes and
//! brings them to the disk in a better order. The same machine changes between the two within a
//! day, so nothing is assumed: both are timed, and the slower one is tried again now and then.
//! Which way bytes go is a matter of speed only; they are the same bytes.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

/// How bytes get to a file or out of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Through the page cache.
    Cached,
    /// Past it.
    Direct,
}

/// The cache must be faster by one part in this many: it costs others what they had in it.
const MARGIN: u64 = 5;
/// Transfers after which the slower way gets another chance where it was nearly as fast. As many
/// times as many as it was slower, from the second time on with the square of that; and twice as
/// many from one time to the next.
const FIRST_RETRY: u32 = 4;
/// The longest such distance.
const MAX_RETRY: u32 = 64;
/// Bytes that a figure rests on at most: older ones fade out.
const WINDOW: u64 = 256 << 20;

/// Both ways, and how fast each has been.
#[derive(Debug, Default)]
pub struct Ways {
    no_direct: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    cached: Speed,
    direct: Speed,
    /// Transfers since the slower way was tried.
    since: u32,
    /// The distance to its next trial, were it as fast.
    distance: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Speed {
    bytes: u64,
    nanos: u64,
    /// A transfer of this kind is under way, the first one: others need not try as well.
    tried: bool,
    /// It was not the way for a while: the next figure counts, not those before.
    is_old: bool,
}

impl Speed {
    fn note(&mut self, bytes: u64, nanos: u64) {
        if std::mem::take(&mut self.is_old) {
            (self.bytes, self.nanos) = (0, 0);
        }
        self.bytes = self.bytes.saturating_add(bytes);
        self.nanos = self.nanos.saturating_add(nanos.max(1));
        while self.bytes > WINDOW {
            self.bytes /= 2;
            self.nanos = (self.nanos / 2).max(1);
        }
    }

    const fn is_known(self) -> bool {
        self.nanos > 0
    }
}

/// Grows with how much faster one is than the other: above what it is the other way round, if so.
fn pace(one: Speed, other: Speed) -> u128 {
    u128::from(one.bytes) * u128::from(other.nanos)
}

impl State {
    /// The way that has been faster; the direct one until both are known.
    fn better(&self) -> Way {
        let (cached, direct) = (self.cached, self.direct);
        if !cached.is_known() || !direct.is_known() {
            return Way::Direct;
        }
        // bytes / nanos of the cache, less its margin, against bytes / nanos of the disk.
        let through = pace(cached, direct) * u128::from(MARGIN);
        let past = pace(direct, cached) * u128::from(MARGIN + 1);
        if through > past {
            Way::Cached
        } else {
            Way::Direct
        }
    }

    /// After how many transfers the slower way is tried again.
    fn patience(&self) -> u32 {
        let (cached, direct) = (self.cached, self.direct);
        let (through, past) = (pace(cached, direct), pace(direct, cached));
        let (slower, faster) = (through.min(past).max(1), through.max(past));
        let tenths = (faster.saturating_mul(10) / slower).min(1000);
        // One figure may be bad luck; what is bad twice is believed.
        let again = if self.distance > FIRST_RETRY {
            tenths
        } else {
            10
        };
        let most = u128::from(MAX_RETRY);
        let patience = (u128::from(self.distance) * tenths * again / 100).min(most);
        u32::try_from(patience).unwrap_or(MAX_RETRY)
    }

    fn choose(&mut self) -> Way {
        if !self.direct.tried {
            self.direct.tried = true;
            return Way::Direct;
        }
        if !self.cached.tried {
            self.cached.tried = true;
            self.distance = FIRST_RETRY;
            return Way::Cached;
        }
        let better = self.better();
        self.since += 1;
        if self.since <= self.patience() || !self.cached.is_known() || !self.direct.is_known() {
            return better;
        }
        self.since = 0;
        self.distance = (self.distance * 2).min(MAX_RETRY);
        match better {
            Way::Cached => {
                self.direct.is_old = true;
                Way::Direct
            }
            Way::Direct => {
                self.cached.is_old = true;
                Way::Cached
            }
        }
    }
}

impl Ways {
    /// The way for the next transfer.
    #[must_use]
    pub fn choose(&self) -> Way {
        if self.has_direct() {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.choose()
        } else {
            Way::Cached
        }
    }

    /// Notes how long a transfer took that went one way.
    pub fn note(&self, way: Way, bytes: usize, nanos: u128) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let nanos = u64::try_from(nanos).unwrap_or(u64::MAX);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match way {
            Way::Cached => state.cached.note(bytes, nanos),
            Way::Direct => state.direct.note(bytes, nanos),
        }
    }

    /// Whether direct I/O may still be tried.
    #[must_use]
    pub fn has_direct(&self) -> bool {
        !self.no_direct.load(Ordering::Relaxed)
    }

    /// The file system has no direct I/O, or none that works.
    pub fn forbid_direct(&self) {
        self.no_direct.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACK: usize = 32 << 20;

    /// Makes `count` transfers, each at the pace of its way in nanoseconds; returns which went
    /// through the cache.
    fn transfers(ways: &Ways, count: usize, (direct, cached): (u128, u128)) -> usize {
        (0..count)
            .filter(|_| {
                let way = ways.choose();
                let nanos = if way == Way::Direct { direct } else { cached };
                ways.note(way, PACK, nanos);
                way == Way::Cached
            })
            .count()
    }

    #[test]
    fn both_ways_are_tried_and_the_faster_one_is_taken() {
        assert_eq!(transfers(&Ways::default(), 2, (100, 10)), 1);
        assert!(transfers(&Ways::default(), 100, (100, 10)) >= 94);
        assert!(transfers(&Ways::default(), 100, (10, 100)) <= 6);
    }

    #[test]
    fn the_cache_must_be_clearly_faster() {
        assert!(transfers(&Ways::default(), 100, (100, 90)) <= 6);
        assert!(transfers(&Ways::default(), 100, (100, 75)) >= 94);
    }

    #[test]
    fn what_was_much_slower_is_tried_less_often() {
        let tried = |pace| transfers(&Ways::default(), 40, pace);
        assert_eq!(tried((10, 100)), 1);
        assert!(tried((10, 20)) < tried((10, 11)));
    }

    #[test]
    fn what_changes_is_noticed() {
        let ways = Ways::default();
        transfers(&ways, 100, (10, 100));
        let cached = transfers(&ways, 400, (1000, 100));
        assert!(cached > 200, "{cached}");
        let cached = transfers(&ways, 400, (10, 100));
        assert!(cached < 200, "{cached}");
    }

    #[test]
    fn several_at_once_try_each_way_with_one_of_them() {
        let ways = Ways::default();
        let first: Vec<_> = (0..4).map(|_| ways.choose()).collect();
        assert_eq!(first, [Way::Direct, Way::Cached, Way::Direct, Way::Direct]);
    }

    #[test]
    fn where_there_is_no_direct_io_the_cache_is_the_way() {
        let ways = Ways::default();
        ways.forbid_direct();
        assert_eq!(transfers(&ways, 10, (1, 100)), 10);
        assert!(!ways.has_direct());
    }
}
