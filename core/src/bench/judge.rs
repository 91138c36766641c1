//! The verdict: what a backup or a restore waits for. Pure, and in whole numbers: costs are in
//! femtoseconds for a byte of the files, so that they add up, and what is cheap is not lost.
//!
//! Disk and cores work at the same time, so the slower of them decides. A core does one stage
//! after the other, so their costs add up; the cores share the blobs among them.

use std::time::Duration;

use super::{Handling, Measured, Pace, Stages};

/// Femtoseconds in a second.
const SECOND: u128 = 1_000_000_000_000_000;
/// Packs that are on their way to the disk at a time: one is written while another is synced.
const PACKS_UNDER_WAY: u128 = 2;

/// What the files are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Compressed or encrypted already.
    Noise,
    /// Dumps, logs, sources.
    Text,
    /// Tensors of bf16.
    Weights,
    /// Text of which a little changed, stored as its difference.
    Changed,
    /// Tensors of bf16 after some more training, stored as their difference.
    Tuned,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Job {
    /// To save what is new.
    Backup(Content),
    /// To save again what the repository has, all of it read.
    Duplicates,
    /// To restore.
    Restore(Content),
}

impl Job {
    /// All that a verdict is given for.
    pub const ALL: [Self; 7] = [
        Self::Backup(Content::Noise),
        Self::Backup(Content::Text),
        Self::Backup(Content::Weights),
        Self::Duplicates,
        Self::Restore(Content::Noise),
        Self::Restore(Content::Text),
        Self::Restore(Content::Weights),
    ];
}

/// What a core does with a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Copying out of the page cache.
    Read,
    /// Finding where content is cut.
    Cut,
    /// Computing ids.
    Hash,
    /// Making blobs smaller.
    Encode,
    /// Encryption.
    Seal,
    /// Putting packs together, with checksums.
    Pack,
    /// Opening packs again and comparing ids.
    Verify,
    /// Decryption.
    Open,
    /// Undoing what made blobs smaller.
    Decode,
    /// Copying into the page cache.
    Write,
}

/// What the disk does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskPart {
    /// Taking bytes.
    Write,
    /// Making each pack last.
    Sync,
    /// Giving bytes.
    Read,
}

/// The narrow place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bottleneck {
    /// The disk of the repository.
    Disk(DiskPart),
    /// The cores, most of all with this stage.
    Processor(Stage),
}

/// What a job waits for, and what is to be expected of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What it waits for.
    pub bottleneck: Bottleneck,
    /// Bytes of files a second.
    pub rate: u64,
    /// What the disk alone would allow; `None` where the job does not need it.
    pub disk_rate: Option<u64>,
    /// What the cores alone would allow.
    pub processor_rate: u64,
    /// The stage that takes most of the cores' time.
    pub stage: Stage,
    /// How much of it, in thousandths.
    pub share: u64,
}

/// Says what `job` waits for where so many cores are at work.
#[must_use]
pub fn judge(measured: &Measured, job: Job, cores: usize) -> Verdict {
    let costs = processor_costs(measured, job);
    let sum: u128 = costs.iter().map(|(_, cost)| cost).sum();
    let (stage, most) = costs
        .iter()
        .copied()
        .max_by_key(|(_, cost)| *cost)
        .unwrap_or((Stage::Hash, 0));
    let cores = u128::try_from(cores.max(1)).unwrap_or(1);
    let processor_rate = rate(cores * SECOND, sum);
    let disk = disk_cost(measured, job);
    let disk_rate = disk.map(|(_, cost)| rate(SECOND, cost));
    let (bottleneck, rate) = match (disk, disk_rate) {
        (Some((part, _)), Some(disk_rate)) if disk_rate < processor_rate => {
            (Bottleneck::Disk(part), disk_rate)
        }
        _ => (Bottleneck::Processor(stage), processor_rate),
    };
    Verdict {
        bottleneck,
        rate,
        disk_rate,
        processor_rate,
        stage,
        share: u64::try_from(most * 1000 / sum.max(1)).unwrap_or(1000),
    }
}

/// What each stage of a job costs a core.
fn processor_costs(measured: &Measured, job: Job) -> Vec<(Stage, u128)> {
    let stages = &measured.stages;
    let of = |work: &Handling, time: Duration| cost(work.pace(time));
    let (read, cut) = (
        (Stage::Read, cost(stages.read)),
        (Stage::Cut, cost(stages.cut)),
    );
    match job {
        Job::Duplicates => {
            let work = &stages.noise;
            vec![read, cut, (Stage::Hash, of(work, work.hash))]
        }
        Job::Backup(content) => {
            let work = stages.handling(content);
            let mut costs = vec![
                read,
                (Stage::Hash, of(work, work.hash)),
                (Stage::Encode, of(work, work.encode)),
                (Stage::Seal, of(work, work.seal)),
                (Stage::Pack, of(work, work.pack)),
            ];
            // Tensors are divided by their layout, without a look at their content.
            if content != Content::Weights {
                costs.push(cut);
            }
            if measured.verify {
                costs.push((Stage::Verify, of(work, work.verify)));
            }
            costs
        }
        Job::Restore(content) => {
            let work = stages.handling(content);
            vec![
                (Stage::Open, of(work, work.open)),
                (Stage::Decode, of(work, work.decode)),
                (Stage::Hash, of(work, work.hash)),
                (Stage::Write, cost(stages.write)),
            ]
        }
    }
}

/// What the disk's slower part costs; `None` where the job does not need the disk.
fn disk_cost(measured: &Measured, job: Job) -> Option<(DiskPart, u128)> {
    let disk = &measured.disk;
    let (content, part, cost) = match job {
        Job::Duplicates => return None,
        Job::Restore(content) => (content, DiskPart::Read, cost(disk.read)),
        Job::Backup(content) => {
            let write = cost(disk.write);
            let pack = u128::from(measured.pack_target.max(1)) * PACKS_UNDER_WAY;
            let sync = disk.fsync.as_nanos() * 1_000_000 / pack;
            if sync > write {
                (content, DiskPart::Sync, sync)
            } else {
                (content, DiskPart::Write, write)
            }
        }
    };
    let work = measured.stages.handling(content);
    let (stored, plain) = (u128::from(work.stored), u128::from(work.plain.max(1)));
    Some((part, cost * stored / plain))
}

impl Stages {
    /// What was measured with blobs like these.
    #[must_use]
    pub const fn handling(&self, content: Content) -> &Handling {
        match content {
            Content::Noise => &self.noise,
            Content::Text => &self.text,
            Content::Weights => &self.weights,
            Content::Changed => &self.changed,
            Content::Tuned => &self.tuned,
        }
    }
}

/// Femtoseconds a byte.
fn cost(pace: Pace) -> u128 {
    pace.time.as_nanos() * 1_000_000 / u128::from(pace.bytes.max(1))
}

fn rate(time: u128, cost: u128) -> u64 {
    u64::try_from(time / cost.max(1)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::{
        super::Disk,
        Bottleneck::{Disk as TheDisk, Processor},
        Content::{Noise, Text, Weights},
        Job::{Backup, Duplicates, Restore},
        *,
    };

    const MIB: u64 = 1 << 20;

    fn mib_a_second(rate: u64) -> Pace {
        Pace {
            bytes: rate * MIB,
            time: Duration::from_secs(1),
        }
    }

    /// A disk that writes and reads so many MiB a second, and syncs in so many milliseconds.
    fn disk(write: u64, read: u64, fsync: u64) -> Disk {
        Disk {
            write: mib_a_second(write),
            read: mib_a_second(read),
            fsync: Duration::from_millis(fsync),
            direct: true,
            in_memory: false,
        }
    }

    /// For a thousand bytes; times in nanoseconds.
    fn work(stored: u64, [encode, verify, decode]: [u64; 3]) -> Handling {
        let nanos = Duration::from_nanos;
        Handling {
            plain: 1000,
            stored,
            hash: nanos(200),
            encode: nanos(encode),
            seal: nanos(200),
            pack: nanos(100),
            verify: nanos(verify),
            open: nanos(200),
            decode: nanos(decode),
        }
    }

    /// About what a core of today does.
    fn measured(disk: Disk) -> Measured {
        Measured {
            disk,
            stages: Stages {
                read: mib_a_second(8000),
                cut: mib_a_second(3000),
                write: mib_a_second(4000),
                noise: work(1000, [600, 450, 0]),
                text: work(250, [3000, 1100, 800]),
                weights: work(670, [1300, 1100, 700]),
                ..Stages::default()
            },
            pack_target: 32 << 20,
            verify: true,
        }
    }

    #[test]
    fn the_slower_of_disk_and_cores_is_named() {
        let fast = || disk(6000, 7000, 0);
        let slow = || disk(100, 120, 5);
        let memory = || disk(9000, 9000, 0);
        let lazy = || disk(2000, 2000, 500);
        let writing = TheDisk(DiskPart::Write);
        let reading = TheDisk(DiskPart::Read);
        let syncing = TheDisk(DiskPart::Sync);
        let cases = [
            (fast(), 8, Backup(Text), Processor(Stage::Encode)),
            (fast(), 8, Backup(Noise), Processor(Stage::Encode)),
            (fast(), 64, Backup(Noise), writing),
            (fast(), 8, Restore(Text), Processor(Stage::Decode)),
            (fast(), 64, Restore(Noise), reading),
            (memory(), 2, Backup(Noise), Processor(Stage::Encode)),
            (memory(), 2, Restore(Noise), Processor(Stage::Write)),
            (slow(), 2, Backup(Noise), writing),
            (slow(), 2, Backup(Weights), writing),
            (slow(), 1, Backup(Text), Processor(Stage::Encode)),
            (slow(), 2, Restore(Noise), reading),
            (slow(), 2, Restore(Text), reading),
            (slow(), 2, Duplicates, Processor(Stage::Cut)),
            (lazy(), 8, Backup(Noise), syncing),
            (lazy(), 8, Restore(Weights), reading),
            (lazy(), 1, Backup(Text), Processor(Stage::Encode)),
        ];
        for (disk, cores, job, expected) in cases {
            let verdict = judge(&measured(disk), job, cores);
            assert_eq!(verdict.bottleneck, expected, "{disk:?}, {cores}, {job:?}");
        }
    }

    #[test]
    fn a_disk_takes_what_is_left_after_compression() {
        let verdict = judge(&measured(disk(100, 100, 0)), Backup(Weights), 64);
        let (expected, tolerance) = (100 * MIB * 1000 / 670, MIB);
        assert!(verdict.rate.abs_diff(expected) < tolerance, "{verdict:?}");
        assert_eq!(verdict.disk_rate, Some(verdict.rate));
    }

    #[test]
    fn costs_of_stages_add_up_and_cores_share_them() {
        let one = judge(&measured(disk(9000, 9000, 0)), Restore(Text), 1);
        // 200 to open, 800 to decode, 200 for the id, and what a thousand bytes take to copy.
        let nanos = 1200 + 1_000_000_000_000 / (4000 * MIB);
        let expected = 1_000_000_000_000 / nanos;
        assert!(one.rate.abs_diff(expected) * 100 < expected, "{one:?}");
        let four = judge(&measured(disk(9000, 9000, 0)), Restore(Text), 4);
        assert!(four.rate.abs_diff(4 * one.rate) <= 4);
        assert_eq!((four.stage, four.share), (Stage::Decode, 556));
    }

    #[test]
    fn duplicates_do_not_wait_for_the_disk() {
        let verdict = judge(&measured(disk(1, 1, 9999)), Duplicates, 2);
        assert_eq!(verdict.disk_rate, None);
        assert_eq!(verdict.rate, verdict.processor_rate);
    }

    #[test]
    fn what_is_not_verified_costs_nothing() {
        let mut measured = measured(disk(9000, 9000, 0));
        let with = judge(&measured, Backup(Noise), 1).rate;
        measured.verify = false;
        assert!(judge(&measured, Backup(Noise), 1).rate > with);
    }

    #[test]
    fn larger_packs_wait_less_for_syncs() {
        let mut measured = measured(disk(2000, 2000, 500));
        for (pack, rate) in [(32, 128 * MIB), (128, 512 * MIB)] {
            measured.pack_target = pack << 20;
            let verdict = judge(&measured, Backup(Noise), 64);
            assert!(verdict.rate.abs_diff(rate) < 1000, "{verdict:?}");
        }
    }

    #[test]
    fn nothing_measured_is_no_reason_to_divide_by_zero() {
        let nothing = Measured {
            disk: Disk::default(),
            stages: Stages::default(),
            pack_target: 0,
            verify: true,
        };
        for job in Job::ALL {
            assert_eq!(judge(&nothing, job, 0).share, 0);
        }
    }
}
