//! Files in the place of devices: what is written, what is refused, what is told.

use std::{
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
};

use strongroom_chunker::fuzz::random;
use strongroom_repo::{
    backend::{MemBackend, ObjectKind, ObjectName},
    repository::Repository,
};
use tempfile::TempDir;

use super::{Image, OntoOptions, OntoReport, restore_onto};
use crate::{
    error::{Error, Result},
    fixture::{Expecting, back_up, create},
    format::tree::{Body, TreeEntry},
    observer::{Observer, Recorder},
    view::View,
};

const MIB: usize = 1 << 20;

/// A repository with one file in it, and the file.
struct Saved {
    _from: TempDir,
    to: TempDir,
    store: MemBackend,
    repo: Repository,
    entry: TreeEntry,
    content: Vec<u8>,
}

impl Saved {
    /// A hole at the start of the file, and noise behind it.
    fn new(hole: usize, noise: usize) -> Self {
        let from = TempDir::new().unwrap();
        let noise = random(noise, 5);
        let file = fs::File::create(from.path().join("disk")).unwrap();
        file.write_all_at(&noise, hole as u64).unwrap();
        let content = [vec![0; hole], noise].concat();
        let store = MemBackend::new();
        let repo = create(&store);
        let tree = back_up(&repo, from.path()).tree;
        let view = View::of_tree(&repo, tree).unwrap();
        let entry = view.lookup_typed(b"disk").unwrap();
        drop(view);
        Self {
            _from: from,
            to: TempDir::new().unwrap(),
            store,
            repo,
            entry,
            content,
        }
    }

    /// A file with this content to write onto.
    fn target(&self, content: &[u8]) -> PathBuf {
        let path = self.to.path().join("target");
        fs::write(&path, content).unwrap();
        path
    }

    fn image(&self) -> Image<'_> {
        let Body::File(content) = &self.entry.body else {
            panic!("no file");
        };
        Image {
            path: b"disk",
            content,
            size: self.entry.node.size(),
        }
    }

    fn write(&self, options: &OntoOptions) -> Result<OntoReport> {
        let heard = Recorder::default();
        let report = self.write_told(options, &heard);
        assert_eq!(heard.problems(), Vec::<String>::new());
        report
    }

    fn write_told(&self, options: &OntoOptions, told: &dyn Observer) -> Result<OntoReport> {
        let cancel = AtomicBool::new(false);
        restore_onto(&self.repo, self.image(), options, told, &cancel)
    }
}

fn onto(device: &Path) -> OntoOptions {
    OntoOptions {
        device: device.to_owned(),
        dry_run: false,
        force: false,
        verify: true,
        workers: 3,
    }
}

#[test]
fn a_file_becomes_the_snapshots_and_only_pages_that_differ_are_written() {
    let saved = Saved::new(3 * MIB, 17 * MIB + 77);
    let size = saved.content.len() as u64;
    let target = saved.target(&vec![0xa5; saved.content.len()]);
    let report = saved.write(&onto(&target)).unwrap();
    let whole = OntoReport {
        size,
        device_size: size,
        compared: size,
        written: size,
        verified: size,
        problems: 0,
    };
    assert_eq!(report, whole);
    assert!(fs::read(&target).unwrap() == saved.content);

    let mut near = saved.content.clone();
    let places = [
        0,
        1,
        2 * MIB,
        9 * MIB + 5,
        9 * MIB + 4096 + 4095,
        20 * MIB + 70,
    ];
    for place in places {
        near[place] ^= 1;
    }
    let target = saved.target(&near);
    let dry = OntoOptions {
        dry_run: true,
        ..onto(&target)
    };
    let would = saved.write(&dry).unwrap();
    assert!(fs::read(&target).unwrap() == near, "a dry run wrote");
    let report = saved.write(&onto(&target)).unwrap();
    assert_eq!(
        (would.written, report.written),
        (4 * 4096 + 77, 4 * 4096 + 77)
    );
    assert!(fs::read(&target).unwrap() == saved.content);
    assert_eq!(saved.write(&onto(&target)).unwrap().written, 0);
}

#[test]
fn what_is_longer_keeps_its_end_and_what_is_shorter_is_refused() {
    let saved = Saved::new(0, 2 * MIB + 9);
    let target = saved.target(&vec![0xa5; 3 * MIB]);
    let report = saved.write(&onto(&target)).unwrap();
    assert_eq!((report.size, report.device_size), (2_097_161, 3 << 20));
    let there = fs::read(&target).unwrap();
    assert!(there[..2 * MIB + 9] == saved.content);
    assert!(there[2 * MIB + 9..].iter().all(|byte| *byte == 0xa5));
    let target = saved.target(&vec![0xa5; 2 * MIB + 8]);
    for dry_run in [true, false] {
        let options = OntoOptions {
            dry_run,
            ..onto(&target)
        };
        let refused = saved.write(&options).unwrap_err();
        assert!(
            matches!(
                refused,
                Error::DeviceTooSmall {
                    size: 2_097_160,
                    wanted: 2_097_161,
                    ..
                }
            ),
            "{refused:?}"
        );
    }
    assert!(fs::read(&target).unwrap().iter().all(|byte| *byte == 0xa5));
}

#[test]
fn only_devices_and_files_that_are_there_are_written() {
    let saved = Saved::new(0, MIB);
    let missing = saved.write(&onto(&saved.to.path().join("missing")));
    assert!(matches!(missing, Err(Error::Restore { .. })), "{missing:?}");
    for other in [saved.to.path(), Path::new("/dev/null")] {
        let refused = saved.write(&onto(other));
        assert!(
            matches!(refused, Err(Error::NotADevice { .. })),
            "{refused:?}"
        );
    }
}

#[test]
fn what_the_repository_lost_is_told_and_the_rest_is_written() {
    let saved = Saved::new(0, 12 * MIB);
    let objects = saved.store.objects();
    let is_pack = |(name, bytes): &(&ObjectName, &Arc<Vec<u8>>)| {
        name.kind() == ObjectKind::Pack && bytes.len() > MIB
    };
    let (name, bytes) = objects.iter().find(is_pack).unwrap();
    let mut damaged = bytes.to_vec();
    damaged[MIB / 2] ^= 1;
    saved.store.replace(*name, damaged);
    let target = saved.target(&vec![0xa5; saved.content.len()]);
    let heard = Recorder::default();
    let options = OntoOptions {
        verify: false,
        ..onto(&target)
    };
    let report = saved.write_told(&options, &heard).unwrap();
    assert!(report.problems > 0);
    let named = Expecting::new(|error: &Error| matches!(error, Error::PieceNotRestored { .. }));
    let again = saved.write_told(&options, &named).unwrap();
    named.assert(usize::try_from(again.problems).unwrap());
    assert_eq!(heard.problems().len() as u64, report.problems);
    assert!(
        heard.problems()[0].starts_with("cannot restore "),
        "{heard:?}"
    );
    assert!(
        report.written > 0 && report.written < report.size,
        "{report:?}"
    );
    let there = fs::read(&target).unwrap();
    let right = there.iter().zip(&saved.content).filter(|(a, b)| a == b);
    // Of a page at the end of what is lost, a part is what was there before.
    let right = right.count() as u64 + report.problems * 2 * 4096;
    assert!(right >= report.written, "{right} {report:?}");
}

/// Changes what was written before it is read back.
struct Meddler(PathBuf);

impl Observer for Meddler {
    fn advanced(&self, _bytes: u64) {
        let file = fs::File::options().write(true).open(&self.0).unwrap();
        file.write_all_at(b"meddled", 5 * MIB as u64).unwrap();
    }
}

#[test]
fn what_reads_back_wrong_is_a_problem() {
    let saved = Saved::new(4 * MIB, 6 * MIB);
    let target = saved.target(&saved.content);
    let meddler = Meddler(target.clone());
    let report = saved.write_told(&onto(&target), &meddler).unwrap();
    assert!(report.problems > 0, "{report:?}");
    assert!(report.verified < report.size, "{report:?}");
}

#[test]
fn a_run_that_is_cancelled_says_so() {
    let saved = Saved::new(0, MIB);
    let target = saved.target(&saved.content);
    let cancel = AtomicBool::new(true);
    let heard = Recorder::default();
    let result = restore_onto(&saved.repo, saved.image(), &onto(&target), &heard, &cancel);
    assert!(matches!(result, Err(Error::Cancelled)), "{result:?}");
}

#[test]
fn content_of_another_length_than_the_files_is_not_written() {
    let saved = Saved::new(0, MIB);
    let target = saved.target(&vec![1; 2 * MIB]);
    for size in [MIB as u64 - 1, MIB as u64 + 1] {
        let image = Image {
            size,
            ..saved.image()
        };
        let cancel = AtomicBool::new(false);
        let heard = Recorder::default();
        let result = restore_onto(&saved.repo, image, &onto(&target), &heard, &cancel);
        assert!(
            matches!(result, Err(Error::WrongLength { .. })),
            "{result:?}"
        );
    }
}
