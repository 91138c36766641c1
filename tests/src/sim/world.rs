//! The machine under a simulation: whose turn it is, what goes wrong, what time it is. One thread
//! runs at a time. A client holds the turn from one operation of the store to the next; there the
//! seed says who goes on, and what becomes of the operation.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use strongroom_repo::{
    backend::{ObjectKind, ObjectName, testing::Call},
    env::{Clock, Timestamp},
};

use super::{
    Mutant,
    random::Random,
    store::Store,
    watch::{Broken, Watch},
    weather::{Strike, Weather},
};

/// The world that all clients share.
pub(super) struct World {
    inner: Mutex<Inner>,
    turns: Vec<Condvar>,
}

/// What only the one whose turn it is touches.
pub(super) struct Inner {
    pub(super) store: Store,
    pub(super) watch: Watch,
    weather: Weather,
    pub(super) random: Random,
    /// Whose turn it is.
    turn: Option<usize>,
    /// Who has not ended.
    busy: Vec<bool>,
    /// Until which step a client stands still.
    asleep: Vec<u64>,
    clocks: Vec<Timestamp>,
    pub(super) sessions: u64,
    /// Power cuts so far: sessions of before are over.
    pub(super) epoch: u64,
    pub(super) steps: u64,
    pub(super) strikes: u64,
    pub(super) trace: blake3::Hasher,
    pub(super) broken: Option<Broken>,
    log: Option<Vec<String>>,
    pub(super) mutant: Option<Mutant>,
}

impl World {
    pub(super) fn new(
        clients: usize,
        parts: (Store, Watch),
        seed: u64,
        mutant: Option<Mutant>,
        tell: bool,
    ) -> Arc<Self> {
        let mut random = Random::new(seed, "world");
        let weather = Weather::new(&mut random);
        let (store, watch) = parts;
        // Clocks of clients disagree by nothing, by days or by years.
        let clocks = (0..clients)
            .map(|_| {
                let skew = random.pick(&[0, 0, 90_000, 400_000_000]).copied();
                let skew = i64::try_from(random.below(1 + skew.unwrap_or(0))).unwrap_or(0);
                Timestamp {
                    secs: 1_700_000_000 + skew,
                    nanos: 0,
                }
            })
            .collect();
        let inner = Inner {
            store,
            watch,
            weather,
            random,
            turn: None,
            busy: vec![true; clients],
            asleep: vec![0; clients],
            clocks,
            sessions: 0,
            epoch: 0,
            steps: 0,
            strikes: 0,
            trace: blake3::Hasher::new(),
            broken: None,
            log: tell.then(Vec::new),
            mutant,
        };
        Arc::new(Self {
            inner: Mutex::new(inner),
            turns: (0..clients).map(|_| Condvar::new()).collect(),
        })
    }

    /// Gives the first turn.
    pub(super) fn start(&self) {
        let mut inner = self.lock();
        inner.choose(None);
        self.wake(&inner);
    }

    /// Waits for the first turn of a client.
    pub(super) fn enter(&self, client: usize) {
        drop(self.wait(self.lock(), client));
    }

    /// A client ends.
    pub(super) fn leave(&self, client: usize) {
        let mut inner = self.lock();
        if let Some(busy) = inner.busy.get_mut(client) {
            *busy = false;
        }
        inner.choose(None);
        self.wake(&inner);
    }

    /// What the one whose turn it is wants to know or say beside the store.
    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The clock of a client.
    pub(super) fn clock(self: &Arc<Self>, client: usize) -> Arc<dyn Clock> {
        Arc::new(ClientClock {
            world: Arc::clone(self),
            client,
        })
    }

    /// Gives the turn away, and waits until it comes back.
    pub(super) fn step(&self, client: usize) -> MutexGuard<'_, Inner> {
        let mut inner = self.lock();
        if inner.turn != Some(client) {
            inner.breaks(format!("client {client} acts out of turn"));
        }
        inner.choose(Some(client));
        if inner.turn == Some(client) {
            return inner;
        }
        self.wake(&inner);
        self.wait(inner, client)
    }

    fn wait<'a>(&self, mut inner: MutexGuard<'a, Inner>, client: usize) -> MutexGuard<'a, Inner> {
        while inner.turn != Some(client) {
            let Some(turn) = self.turns.get(client) else {
                return inner;
            };
            inner = turn.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        inner
    }

    fn wake(&self, inner: &Inner) {
        if let Some(turn) = inner.turn.and_then(|next| self.turns.get(next)) {
            turn.notify_all();
        }
    }
}

impl Inner {
    /// Notes a promise that was not kept; the first is told.
    pub(super) fn breaks(&mut self, what: Broken) {
        self.say(|| format!("BROKEN: {what}"));
        self.broken.get_or_insert(what);
    }

    /// The same for a result.
    pub(super) fn hold(&mut self, kept: Result<(), Broken>) {
        if let Err(what) = kept {
            self.breaks(what);
        }
    }

    pub(super) const fn broken(&self) -> Option<&Broken> {
        self.broken.as_ref()
    }

    /// What happened, as a number.
    pub(super) fn trace(&self) -> blake3::Hash {
        self.trace.finalize()
    }

    /// A line of the tale, where somebody listens.
    pub(super) fn say(&mut self, line: impl FnOnce() -> String) {
        if let Some(log) = &mut self.log {
            log.push(line());
        }
    }

    pub(super) fn take_tale(&mut self) -> Vec<String> {
        self.log.take().unwrap_or_default()
    }

    /// Says who goes on.
    fn choose(&mut self, now: Option<usize>) {
        self.steps += 1;
        if let Some(client) = now {
            if self.random.below(10_000) < self.weather.naps {
                self.nap(client);
            }
            if self.random.permille(self.weather.stay) && self.is_awake(client) {
                return;
            }
        }
        let busy: Vec<usize> = (0..self.busy.len())
            .filter(|client| self.busy.get(*client) == Some(&true))
            .collect();
        let awake: Vec<usize> = busy
            .iter()
            .copied()
            .filter(|client| self.is_awake(*client))
            .collect();
        let from = if awake.is_empty() { busy } else { awake };
        self.turn = self.random.pick(&from).copied();
    }

    /// A client stands still for long.
    pub(super) fn nap(&mut self, client: usize) {
        let until = self.steps + 50 + self.random.below(1500);
        if let Some(asleep) = self.asleep.get_mut(client) {
            *asleep = until;
        }
    }

    fn is_awake(&self, client: usize) -> bool {
        self.asleep
            .get(client)
            .is_some_and(|until| *until <= self.steps)
    }

    /// Time goes on with each operation, sometimes by leaps, and now and then it is set back.
    pub(super) fn tick(&mut self, client: usize) {
        let leap = match self.random.below(2000) {
            0 => 200_000,
            1..=4 => 4000,
            5 => -150_000,
            6 => -3000,
            _ => 0,
        };
        let nanos = u32::try_from(self.random.below(900_000_000)).unwrap_or(0);
        if let Some(clock) = self.clocks.get_mut(client) {
            clock.secs += 1 + leap;
            clock.nanos = nanos;
        }
    }

    /// What becomes of an operation.
    pub(super) fn draw(&mut self, call: &Call) -> Strike {
        self.weather.draw(&mut self.random, call)
    }

    pub(super) fn cut_power(&mut self) {
        self.epoch += 1;
        let mut coins = Random::new(self.random.next(), "power cut");
        self.store.lose_power(&mut || coins.next() & 1 == 0);
        let seen = self.watch.reopen(&self.store);
        self.hold(seen);
    }

    /// Puts that were on their way may arrive now.
    pub(super) fn deliver(&mut self) {
        if self.store.under_way() > 0 && self.random.permille(100) {
            let which = self.random.place(self.store.under_way());
            if let Some(name) = self.store.arrive(which) {
                self.say(|| format!("      {name} arrives late"));
                self.after(&name);
            }
        }
    }

    /// Looks whether all is as promised, after an object came or went.
    pub(super) fn after(&mut self, name: &ObjectName) {
        let kept = match name.kind() {
            ObjectKind::Log => self.watch.look(&self.store),
            ObjectKind::Pack | ObjectKind::Index | ObjectKind::Snapshot => {
                self.watch.all_there(&self.store)
            }
            _ => Ok(()),
        };
        self.hold(kept);
    }
}

struct ClientClock {
    world: Arc<World>,
    client: usize,
}

impl Clock for ClientClock {
    fn now(&self) -> Timestamp {
        let inner = self.world.lock();
        inner.clocks.get(self.client).copied().unwrap_or_default()
    }
}
