//! What the cores do: each stage of the pipeline on made-up blobs, with the code that a backup and
//! a restore run. All cores work at the same time, each on its own blobs, as they do there: what
//! they share, memory and caches above all, is then in the figures for one core. Time is counted
//! while a thread runs: another program's share of the cores is not taken for a slow stage.

use std::{
    hint::black_box,
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::{MemfdFlags, memfd_create},
    io::Errno,
    time::{ClockId, clock_gettime},
};
use strongroom_chunker::{Chunker, ChunkerKind, ChunkerParams};
use strongroom_repo::{
    aligned::AlignedBuf,
    codec::{Decoder, Encoder, FloatKind, Hint, Level},
    crypto::{BlobKind, EpochKey, ObjectKey, Roots, SealKind, SecretKey},
    error::Error as RepoError,
    format::pack::BlobEntry,
    id::{DomainId, EpochId},
    pack::{PackBuilder, Scratch},
};

use super::{
    Pace,
    sample::{BLOB, edit, noise, text, train, weights},
};
use crate::error::{Error, Result};

/// Blobs of a round.
const BLOBS: u64 = 4;
/// Bytes of the file that is copied out of the page cache and into it: more than a cache holds.
const CACHED: usize = 32 << 20;
/// Bytes that a worker reads and cuts at a time.
const UNIT: usize = 4 << 20;

/// How the stages are measured.
#[derive(Clone, Copy, Debug)]
pub struct StagesOptions {
    /// How hard to compress.
    pub level: Level,
    /// Threads at work.
    pub cores: usize,
    /// Least time for each kind of content, for cutting, and for the page cache.
    pub time: Duration,
}

/// What one core does while all are at work.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stages {
    /// Copying out of the page cache.
    pub read: Pace,
    /// Copying into it.
    pub write: Pace,
    /// Finding cuts.
    pub cut: Pace,
    /// All that is done with blobs that cannot be compressed.
    pub noise: Handling,
    /// With text.
    pub text: Handling,
    /// With tensors of bf16.
    pub weights: Handling,
    /// Encoding and decoding text of which a little changed, as its difference.
    pub changed: Handling,
    /// The same with tensors of bf16 after some more training.
    pub tuned: Handling,
}

/// How long it took to do with some blobs all that is done with them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Handling {
    /// Their length in bytes.
    pub plain: u64,
    /// Their length once they are encoded.
    pub stored: u64,
    /// Computing their ids.
    pub hash: Duration,
    /// Encoding them.
    pub encode: Duration,
    /// Sealing them.
    pub seal: Duration,
    /// Making packs of them.
    pub pack: Duration,
    /// Opening the packs and comparing ids.
    pub verify: Duration,
    /// Opening seals, for a restore.
    pub open: Duration,
    /// Decoding, for a restore.
    pub decode: Duration,
}

impl Handling {
    /// The pace of one of these times, in bytes of files.
    #[must_use]
    pub const fn pace(&self, time: Duration) -> Pace {
        Pace {
            bytes: self.plain,
            time,
        }
    }

    fn add(&mut self, other: &Self) {
        self.plain += other.plain;
        self.stored += other.stored;
        self.hash += other.hash;
        self.encode += other.encode;
        self.seal += other.seal;
        self.pack += other.pack;
        self.verify += other.verify;
        self.open += other.open;
        self.decode += other.decode;
    }
}

/// Measures all stages.
///
/// # Errors
/// [`Error::Cancelled`]; [`Error::BenchMemory`], [`Error::Repo`] where there is no memory.
pub fn stages(options: StagesOptions, cancel: &AtomicBool) -> Result<Stages> {
    let bf16 = Hint::Float {
        dtype: FloatKind::Bf16,
        phase: 0,
    };
    let copies = on_all_cores(options.cores, || copy(options.time, cancel))?;
    let cuts = on_all_cores(options.cores, || cut(options.time, cancel))?;
    let mut stages = Stages::default();
    for (read, write) in copies {
        stages.read.add(read);
        stages.write.add(write);
    }
    for pace in cuts {
        stages.cut.add(pace);
    }
    for (sum, make, hint) in [
        (
            &mut stages.noise,
            noise as fn(usize, u64) -> Vec<u8>,
            Hint::Plain,
        ),
        (&mut stages.text, text, Hint::Plain),
        (&mut stages.weights, weights, bf16),
    ] {
        let blobs: Vec<_> = (0..BLOBS).map(|seed| make(BLOB, seed)).collect();
        for done in on_all_cores(options.cores, || handle(&blobs, hint, options, cancel))? {
            sum.add(&done);
        }
    }
    for (sum, change, hint) in [
        (
            &mut stages.changed,
            edited as fn(u64) -> Change,
            Hint::Plain,
        ),
        (&mut stages.tuned, tuned, bf16),
    ] {
        let changes: Vec<_> = (0..BLOBS).map(change).collect();
        for done in on_all_cores(options.cores, || differ(&changes, hint, options, cancel))? {
            sum.add(&done);
        }
    }
    Ok(stages)
}

/// A blob, and what it was before.
struct Change {
    base: Vec<u8>,
    plain: Vec<u8>,
}

fn edited(seed: u64) -> Change {
    let base = text(BLOB, seed);
    Change {
        plain: edit(&base, seed),
        base,
    }
}

fn tuned(seed: u64) -> Change {
    let base = weights(BLOB, seed);
    Change {
        plain: train(&base, seed),
        base,
    }
}

/// Encodes blobs as their differences, and decodes them.
fn differ(
    changes: &[Change],
    hint: Hint,
    options: StagesOptions,
    cancel: &AtomicBool,
) -> Result<Handling> {
    let failed = |error| Error::from(RepoError::Codec(error));
    let mut encoder = Encoder::new(options.level).map_err(failed)?;
    let mut decoder = Decoder::new().map_err(failed)?;
    let (mut encoded, mut plain) = (Vec::new(), Vec::new());
    rounds(options.time, cancel, |sum: &mut Handling| {
        for change in changes
            .iter()
            .take_while(|_| !cancel.load(Ordering::Relaxed))
        {
            let (base, new) = (change.base.as_slice(), black_box(change.plain.as_slice()));
            let codec = timed(&mut sum.encode, || {
                encoder.encode_delta(hint, new, base, new.len(), &mut encoded)
            });
            sum.plain += new.len() as u64;
            // Without compression there are no differences either.
            let Some(codec) = codec.map_err(failed)? else {
                sum.stored += new.len() as u64;
                continue;
            };
            sum.stored += encoded.len() as u64;
            let base = Some(base);
            let decoded = timed(&mut sum.decode, || {
                decoder.decode(codec, &encoded, base, new.len(), &mut plain)
            });
            decoded.map_err(failed)?;
            black_box(&plain);
        }
        Ok(())
    })
}

/// Does `work` as often as there are cores, at the same time.
fn on_all_cores<T: Send>(cores: usize, work: impl Fn() -> Result<T> + Sync) -> Result<Vec<T>> {
    thread::scope(|scope| {
        let threads: Vec<_> = (0..cores.max(1)).map(|_| scope.spawn(&work)).collect();
        // All are waited for, whatever became of the first.
        let results: Vec<_> = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or(Err(Error::WorkerLost)))
            .collect();
        results.into_iter().collect()
    })
}

/// Repeats `round` until the time is over. The first round, which finds caches and memory cold, is
/// left out unless it took all the time.
fn rounds<T: Default>(
    time: Duration,
    cancel: &AtomicBool,
    mut round: impl FnMut(&mut T) -> Result<()>,
) -> Result<T> {
    let begin = Instant::now();
    let mut sum = T::default();
    round(&mut sum)?;
    if begin.elapsed() < time {
        sum = T::default();
        round(&mut sum)?;
    }
    while begin.elapsed() < time && !cancel.load(Ordering::Relaxed) {
        round(&mut sum)?;
    }
    if cancel.load(Ordering::Relaxed) {
        return Err(Error::Cancelled);
    }
    Ok(sum)
}

/// Adds to `sum` the time of this core that `work` takes; what others take of it meanwhile does not
/// count.
fn timed<T>(sum: &mut Duration, work: impl FnOnce() -> T) -> T {
    let start = core_time();
    let result = work();
    *sum += core_time().saturating_sub(start);
    result
}

/// How long this thread has been at work.
fn core_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let part = |number| u64::try_from(number).unwrap_or_default();
    Duration::from_secs(part(time.tv_sec)) + Duration::from_nanos(part(time.tv_nsec))
}

/// Copies a file in memory out of the page cache and into it.
fn copy(time: Duration, cancel: &AtomicBool) -> Result<(Pace, Pace)> {
    let mut buffer = AlignedBuf::new();
    buffer.extend_from_slice(&noise(UNIT, 4));
    rounds(time, cancel, |paces: &mut (Pace, Pace)| {
        // A new file every time: filling fresh pages is what a restore does.
        let file = memfd_create("strongroom-bench", MemfdFlags::CLOEXEC);
        let copied = file.and_then(|file| copy_through(&file, &mut buffer, paces));
        copied.map_err(no_memory)
    })
}

fn no_memory(errno: Errno) -> Error {
    Error::BenchMemory {
        source: errno.into(),
    }
}

/// Fills a file and reads it again.
fn copy_through(
    file: &OwnedFd,
    buffer: &mut AlignedBuf,
    (read, write): &mut (Pace, Pace),
) -> rustix::io::Result<()> {
    let units = (0..CACHED).step_by(UNIT).map(|at| at as u64);
    for at in units.clone() {
        let len = timed(&mut write.time, || rustix::io::pwrite(file, &*buffer, at));
        write.bytes += len? as u64;
    }
    for at in units {
        let len = timed(&mut read.time, || {
            rustix::io::pread(file, &mut **buffer, at)
        });
        read.bytes += len? as u64;
    }
    Ok(())
}

/// Cuts noise, the way a new repository does.
fn cut(time: Duration, cancel: &AtomicBool) -> Result<Pace> {
    let content = noise(UNIT, 5);
    let chunker = Chunker::new(ChunkerKind::Gear, ChunkerParams::default(), &[5; 32]);
    let mut cuts = Vec::new();
    rounds(time, cancel, |pace: &mut Pace| {
        cuts.clear();
        timed(&mut pace.time, || {
            chunker.cut_all(black_box(&content), &mut cuts);
        });
        black_box(&cuts);
        pace.bytes += content.len() as u64;
        Ok(())
    })
}

/// Does everything with some blobs that is done with them.
fn handle(
    blobs: &[Vec<u8>],
    hint: Hint,
    options: StagesOptions,
    cancel: &AtomicBool,
) -> Result<Handling> {
    let mut bench = Bench::new(options.level)?;
    rounds(options.time, cancel, |sum| {
        bench.round(blobs, hint, sum, cancel).map_err(Error::from)?;
        Ok(())
    })
}

/// What one core works with. Keys are made up: what they seal is thrown away.
struct Bench {
    roots: Roots,
    encoder: Encoder,
    decoder: Decoder,
    scratch: Scratch,
    sealed: Vec<u8>,
    copy: Vec<u8>,
    plain: Vec<u8>,
    pack: AlignedBuf,
}

impl Bench {
    fn new(level: Level) -> Result<Self, RepoError> {
        let roots = Roots::new(
            SecretKey::new([1; 32]),
            SecretKey::new([2; 32]),
            vec![],
            vec![],
        );
        Ok(Self {
            roots,
            encoder: Encoder::new(level)?,
            decoder: Decoder::new()?,
            scratch: Scratch::new()?,
            sealed: Vec::new(),
            copy: Vec::new(),
            plain: Vec::new(),
            pack: AlignedBuf::new(),
        })
    }

    /// A pack of `blobs`: made, verified, and opened again.
    fn round(
        &mut self,
        blobs: &[Vec<u8>],
        hint: Hint,
        sum: &mut Handling,
        cancel: &AtomicBool,
    ) -> Result<(), RepoError> {
        let root = EpochKey {
            epoch: EpochId::new([3; EpochId::LEN]),
            key: SecretKey::new([3; 32]),
        };
        let domain = DomainId::new([4; DomainId::LEN]);
        let key = Arc::new(ObjectKey::create(&root, domain, SealKind::Pack, [5; 32])?);
        let mut pack = PackBuilder::new(Arc::clone(&key), std::mem::take(&mut self.pack));
        for plain in blobs {
            // The hardest level takes long for a single blob. Whoever called sees it, too.
            if cancel.load(Ordering::Relaxed) {
                return Ok(());
            }
            self.blob(&key, &mut pack, hint, plain, sum)?;
        }
        let finished = timed(&mut sum.pack, || pack.finish())?;
        timed(&mut sum.verify, || {
            finished.verify(&self.roots, &mut self.scratch)
        })?;
        self.pack = finished.bytes;
        Ok(())
    }

    fn blob(
        &mut self,
        key: &ObjectKey,
        pack: &mut PackBuilder,
        hint: Hint,
        plain: &[u8],
        sum: &mut Handling,
    ) -> Result<(), RepoError> {
        let id = timed(&mut sum.hash, || {
            self.roots.blob_id(BlobKind::Data, black_box(plain))
        });
        let codec = timed(&mut sum.encode, || {
            self.encoder
                .encode(hint, black_box(plain), &mut self.sealed)
        })?;
        let number = key.next_segment()?;
        let segment = number.number();
        let entry = BlobEntry {
            kind: BlobKind::Data,
            codec: codec.to_byte(),
            base: None,
            segment,
            offset: 0,
            sealed_len: 0,
            plain_len: u32::try_from(plain.len()).unwrap_or(u32::MAX),
            id,
        };
        let info = entry.segment_info();
        sum.plain += plain.len() as u64;
        sum.stored += self.sealed.len() as u64;
        timed(&mut sum.seal, || key.seal(number, &info, &mut self.sealed))?;
        timed(&mut sum.pack, || pack.append(entry, &self.sealed))?;
        self.copy.clone_from(&self.sealed);
        let encoded = timed(&mut sum.open, || {
            key.open_segment(segment, &info, &mut self.copy)
        })?;
        let plain = timed(&mut sum.decode, || {
            let room = &mut self.plain;
            self.decoder.plain(codec, encoded, None, plain.len(), room)
        })?;
        black_box(plain);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE_ROUND: StagesOptions = StagesOptions {
        level: Level::Auto,
        cores: 2,
        time: Duration::ZERO,
    };

    #[test]
    fn memory_that_takes_no_file_is_told_as_such() {
        let nothing = std::fs::File::open("/dev/null").unwrap().into();
        let mut buffer = AlignedBuf::new();
        buffer.extend_from_slice(&[1; 100]);
        let copied = copy_through(&nothing, &mut buffer, &mut <(Pace, Pace)>::default());
        let error = no_memory(copied.unwrap_err());
        assert!(
            matches!(&error, Error::BenchMemory { source }
                if source.raw_os_error() == Some(Errno::BADF.raw_os_error())),
            "{error:?}"
        );
    }

    #[test]
    fn each_stage_handles_its_bytes_on_every_core() {
        let stages = stages(ONE_ROUND, &AtomicBool::new(false)).unwrap();
        assert_eq!(stages.read.bytes, 2 * CACHED as u64);
        assert_eq!(stages.write.bytes, 2 * CACHED as u64);
        assert_eq!(stages.cut.bytes, 2 * UNIT as u64);
        for work in [&stages.noise, &stages.text, &stages.weights] {
            assert_eq!(work.plain, 2 * BLOBS * BLOB as u64);
        }
        assert_eq!(stages.noise.stored, stages.noise.plain);
        assert!(stages.text.stored < stages.text.plain / 2);
        assert!(stages.weights.stored < stages.weights.plain / 4 * 3);
        for work in [&stages.changed, &stages.tuned] {
            assert_eq!(work.plain, 2 * BLOBS * BLOB as u64);
            assert!(work.stored < work.plain / 8, "{work:?}");
            assert!(work.stored > work.plain / 1000, "{work:?}");
        }
    }

    #[test]
    fn without_compression_everything_is_stored() {
        let options = StagesOptions {
            level: Level::Off,
            cores: 0,
            ..ONE_ROUND
        };
        let stages = stages(options, &AtomicBool::new(false)).unwrap();
        assert_eq!(stages.text.stored, stages.text.plain);
        assert_eq!(stages.text.plain, BLOBS * BLOB as u64);
        assert_eq!(stages.tuned.stored, stages.tuned.plain);
    }

    #[test]
    fn a_worker_that_dies_is_told() {
        let lost: Result<Vec<()>> = on_all_cores(2, || panic!("on purpose"));
        assert!(matches!(lost, Err(Error::WorkerLost)), "{lost:?}");
    }
}
