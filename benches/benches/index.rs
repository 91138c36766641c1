//! Look-ups in an index of a million blobs, one at a time, on one core.
//!
//! Run with `cargo bench -p strongroom-benches --bench index`.

use std::{collections::HashSet, hint::black_box, sync::LazyLock};

use divan::{Bencher, counter::ItemsCount};
use strongroom_repo::{
    id::{BlobId, RepoId},
    index::{Index, IndexCache, synthetic::Synthetic},
};

const MADE_UP: Synthetic = Synthetic {
    objects: 32,
    packs: 1000,
    blobs: 32,
};

static INDEX: LazyLock<Index> = LazyLock::new(|| {
    let repo = RepoId::new([1; 16]);
    let mut load = |id| Ok(MADE_UP.body(id));
    let index = IndexCache::open(None, repo, &MADE_UP.live(), &HashSet::new(), &mut load);
    index.unwrap_or_default()
});

fn main() {
    divan::main();
}

/// Ids in an order that jumps about; `beyond` is added to the number of the index object.
fn ids(beyond: u32) -> Vec<BlobId> {
    (0..1 << 16)
        .map(|step: u32| {
            let step = step.wrapping_mul(2_654_435_761);
            let object = (step >> 8) % MADE_UP.objects + beyond;
            Synthetic::blob_id(object, (step >> 16) % MADE_UP.packs, step % MADE_UP.blobs)
        })
        .collect()
}

fn look_up(bencher: Bencher<'_, '_>, ids: &[BlobId]) {
    LazyLock::force(&INDEX);
    bencher.counter(ItemsCount::new(ids.len())).bench_local(|| {
        let known = |id: &&BlobId| INDEX.contains(black_box(id)).unwrap_or(false);
        ids.iter().filter(known).count()
    });
}

/// Blobs that are known.
#[divan::bench]
fn hit(bencher: Bencher) {
    look_up(bencher, &ids(0));
}

/// Blobs that are not.
#[divan::bench]
fn miss(bencher: Bencher) {
    look_up(bencher, &ids(MADE_UP.objects));
}
