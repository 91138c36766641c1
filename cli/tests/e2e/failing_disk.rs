//! A disk that fails under the program: a sample of what `examples/syscalls.rs` goes through.

use std::{
    fs::{self, File},
    io::Write as _,
    path::Path,
};

use crate::{
    disk::{Disk, Effect, Fault, Tree},
    runs::{Dice, needs_root},
    syscalls::{Deed, Rig, Tally},
};

/// Faults that strike in a run of the tests.
const STRUCK: u64 = 5;
/// As many may not be met: threads take another course from run to run.
const NOT_MET: u64 = 5;
/// Power cuts in a run of the tests, beside the one after the end.
const CUTS: usize = 5;

/// The files of a folder with what they hold, as text.
fn held(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let told = entries.map(|entry| {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        format!("{name}={}", fs::read_to_string(&path).unwrap())
    });
    let mut told: Vec<_> = told.collect();
    told.sort();
    told
}

fn sync(path: &Path) -> std::io::Result<()> {
    File::open(path)?.sync_all()
}

#[test]
fn the_disk_of_these_tests_keeps_through_a_power_cut_what_was_synced_and_nothing_else() {
    needs_root("a file system of our own is mounted");
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().join("disk");
    let disk = Disk::mount(&at, Tree::default(), None).unwrap();
    let (known, new) = (at.join("known"), at.join("new"));
    fs::create_dir(&known).unwrap();
    for name in ["whole", "more", "empty", "old", "gone"] {
        fs::write(known.join(name), "1").unwrap();
    }
    for name in ["whole", "more", "old", "gone"] {
        sync(&known.join(name)).unwrap();
    }
    sync(&known).unwrap();
    sync(&at).unwrap();
    fs::create_dir(&new).unwrap();
    fs::write(new.join("file"), "1").unwrap();
    sync(&new.join("file")).unwrap();
    sync(&new).unwrap();
    {
        let mut more = File::options();
        let mut more = more.append(true).open(known.join("more")).unwrap();
        more.write_all(b"2").unwrap();
    }
    fs::write(known.join("unnamed"), "1").unwrap();
    sync(&known.join("unnamed")).unwrap();
    fs::rename(known.join("old"), known.join("renamed")).unwrap();
    fs::remove_file(known.join("gone")).unwrap();
    let live = ["empty=1", "more=12", "renamed=1", "unnamed=1", "whole=1"];
    assert_eq!(held(&known), live);
    let (left, unmounted) = (disk.tree_after_power_cut(), disk.tree());
    drop(disk);
    let disk = Disk::mount(&at, left, None).unwrap();
    assert_eq!(
        held(&known),
        ["empty=", "gone=1", "more=1", "old=1", "whole=1"]
    );
    assert!(!new.exists());
    drop(disk);
    let _disk = Disk::mount(&at, unmounted, None).unwrap();
    assert_eq!(held(&known), live);
    assert_eq!(held(&new), ["file=1"]);
}

#[test]
fn the_disk_of_these_tests_loses_what_a_failed_sync_was_to_keep() {
    needs_root("a file system of our own is mounted");
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().join("disk");
    let disk = Disk::mount(&at, Tree::default(), None).unwrap();
    let failing = |nth| Fault {
        effect: Effect::FailedSync,
        nth,
        lasting: false,
    };
    fs::write(at.join("file"), "1").unwrap();
    sync(&at.join("file")).unwrap();
    sync(&at).unwrap();
    fs::write(at.join("other"), "1").unwrap();
    disk.set(Some(failing(1)));
    sync(&at).unwrap_err();
    assert_eq!(held(&at), ["file=1"]);
    let mut file = File::options().append(true).open(at.join("file")).unwrap();
    file.write_all(b"2").unwrap();
    disk.set(Some(failing(1)));
    file.sync_all().unwrap_err();
    drop(file);
    // As it is once the system has forgotten what it knows of the disk.
    let again = folder.path().join("again");
    let _disk = Disk::mount(&again, disk.tree_as_it_is(), None).unwrap();
    assert_eq!(held(&again), ["file=1\0"]);
}

#[test]
fn a_disk_that_fails_at_any_operation_of_an_init_leaves_it_to_be_done_again() {
    faults(Deed::Init);
}

#[test]
fn a_disk_that_fails_at_any_operation_of_a_backup_loses_nothing() {
    faults(Deed::Backup);
}

#[test]
fn a_disk_that_fails_at_any_operation_of_a_forget_and_a_prune_loses_nothing() {
    faults(Deed::Prune);
}

#[test]
fn a_power_cut_at_any_operation_of_an_init_leaves_a_repository_or_room_for_one() {
    power_cuts(Deed::Init);
}

#[test]
fn a_power_cut_at_any_operation_of_a_backup_loses_nothing_that_was_told() {
    power_cuts(Deed::Backup);
}

#[test]
fn a_power_cut_at_any_operation_of_a_forget_and_a_prune_loses_nothing_that_is_kept() {
    power_cuts(Deed::Prune);
}

fn faults(deed: Deed) {
    let folder = tempfile::tempdir().unwrap();
    let rig = rig(folder.path(), deed);
    let mut faults = rig.faults();
    assert!(faults.len() > 500, "{} faults", faults.len());
    let mut dice = Dice::rolled();
    let mut tally = Tally::default();
    // What was not met is drawn again.
    while tally.met() < STRUCK {
        let missed = tally.all() - tally.met();
        assert!(missed <= NOT_MET, "{missed} faults were not met: {tally:?}");
        let chosen: Vec<Fault> = (tally.met()..STRUCK)
            .map(|_| faults.swap_remove(dice.below(faults.len())))
            .collect();
        tally.add(rig.run_all(&chosen, 2));
    }
    assert!(tally.wrong.is_empty(), "{:#?}", tally.wrong);
}

/// One in each of so many parts of the deed, and one after its end.
fn power_cuts(deed: Deed) {
    let folder = tempfile::tempdir().unwrap();
    let rig = rig(folder.path(), deed);
    let cuts = rig.power_cuts();
    let (after, cuts) = cuts.split_last().unwrap();
    assert!(cuts.len() > 50, "{} cuts", cuts.len());
    let mut dice = Dice::rolled();
    let mut chosen = vec![*after];
    for part in cuts.chunks(cuts.len().div_ceil(CUTS)) {
        chosen.push(part[dice.below(part.len())]);
    }
    let tally = rig.run_all(&chosen, 2);
    assert!(tally.wrong.is_empty(), "{:#?}", tally.wrong);
    // The last ones may come too late.
    assert!(tally.met() + 1 >= tally.all(), "{tally:?}");
}

fn rig(folder: &Path, deed: Deed) -> Rig {
    needs_root("a file system of our own is mounted");
    let program = Path::new(env!("CARGO_BIN_EXE_strongroom"));
    Rig::new(program, folder, deed).unwrap()
}
