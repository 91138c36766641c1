//! A disk that fails under the program: a sample of what `examples/syscalls.rs` goes through.

use std::path::Path;

use crate::{
    disk::Fault,
    runs::{Dice, needs_root},
    syscalls::{Deed, Rig, Tally},
};

/// Faults that strike in a run of the tests.
const STRUCK: u64 = 5;
/// As many may not be met: threads take another course from run to run.
const NOT_MET: u64 = 5;
/// Power cuts in a run of the tests, beside the one after the end.
const CUTS: usize = 5;

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
