//! The inner pages above a growing list of pages: what waits, level by level, until the page above
//! it is full.

/// What is said of finished pages (`C`) that have no page above them yet.
#[derive(Debug)]
pub(super) struct Levels<C> {
    /// The lowest level first. The highest is never empty.
    waiting: Vec<Vec<C>>,
}

/// Stores an inner page over some children, and says of it what the page above it is to hold.
pub(super) type StoreInner<'a, C, E> = &'a mut dyn FnMut(Vec<C>) -> Result<C, E>;

impl<C> Default for Levels<C> {
    fn default() -> Self {
        Self {
            waiting: Vec::new(),
        }
    }
}

impl<C> Levels<C> {
    /// Whether there has been no page yet.
    pub(super) const fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Adds a page of the lowest level, and closes none above it.
    pub(super) fn add(&mut self, page: C) {
        match self.waiting.first_mut() {
            Some(lowest) => lowest.push(page),
            None => self.waiting.push(vec![page]),
        }
    }

    /// Adds a page of the lowest level, and closes those above it that are full then: `is_full` is
    /// asked with a level and two or more children that wait there.
    ///
    /// # Errors
    /// What `store` returns.
    pub(super) fn push<E>(
        &mut self,
        mut page: C,
        is_full: &dyn Fn(usize, &[C]) -> bool,
        store: StoreInner<'_, C, E>,
    ) -> Result<(), E> {
        for (level, children) in self.waiting.iter_mut().enumerate() {
            children.push(page);
            if children.len() < 2 || !is_full(level, children) {
                return Ok(());
            }
            page = store(std::mem::take(children))?;
        }
        self.waiting.push(vec![page]);
        Ok(())
    }

    /// Closes all: the root, and how many levels lie below it. `None` where there was no page.
    ///
    /// # Errors
    /// What `store` returns.
    pub(super) fn finish<E>(self, store: StoreInner<'_, C, E>) -> Result<Option<(C, u8)>, E> {
        let highest = self.waiting.len().saturating_sub(1);
        let mut below = None;
        let mut level = 0;
        for (at, mut children) in self.waiting.into_iter().enumerate() {
            children.extend(below.take());
            below = if children.is_empty() {
                None
            } else if children.len() == 1 && at == highest {
                return Ok(children.pop().map(|root| (root, level)));
            } else {
                Some(store(children)?)
            };
            level += 1;
        }
        Ok(below.map(|root| (root, level)))
    }
}
