//! A disk that fails under the program: a sample of what `examples/syscalls.rs` goes through.

use std::path::Path;

use crate::{
    disk::Fault,
    runs::{Dice, needs_root},
    syscalls::{Deed, Rig, Tally},
};

/// Faults that are tried in a run of the tests.
const TRIED: usize = 5;

#[test]
fn a_disk_that_fails_at_any_operation_of_a_backup_loses_nothing() {
    sample(Deed::Backup);
}

#[test]
fn a_disk_that_fails_at_any_operation_of_a_forget_and_a_prune_loses_nothing() {
    sample(Deed::Prune);
}

fn sample(deed: Deed) {
    needs_root("a file system of our own is mounted");
    let folder = tempfile::tempdir().unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_strongroom"));
    let rig = Rig::new(program, folder.path(), deed).unwrap();
    let mut faults = rig.faults();
    assert!(faults.len() > 500, "{} faults", faults.len());
    let mut dice = Dice::rolled();
    let chosen: Vec<Fault> = (0..TRIED)
        .map(|_| {
            let nth = dice.next() % faults.len() as u64;
            faults.swap_remove(usize::try_from(nth).unwrap())
        })
        .collect();
    let mut tally = Tally::default();
    tally.add(rig.run_all(&chosen, 2));
    assert!(tally.wrong.is_empty(), "{:#?}", tally.wrong);
}
