//! Damage anywhere in a small repository is named by a check and never restored as something else.
//! What takes longer (every bit, full-size packs) is in `just soak`.

use strongroom_repo::backend::{Backend as _, ObjectKind, ObjectName, testing::Damage};
use strongroom_tests::flips::{Sample, judge_all};

/// A case: an object, and what happens to it.
type Case = (ObjectName, Damage);

/// Judges all cases, each of which is damage.
fn judged(sample: &Sample, cases: &[Case]) -> usize {
    let judge = |(name, damage): &Case| sample.judge_one(*name, *damage);
    let (count, complaints) = judge_all(cases, &judge);
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    assert_eq!(count, cases.len(), "some changed nothing");
    count
}

fn lens(sample: &Sample) -> Vec<(ObjectName, u64)> {
    let objects = sample.objects.objects();
    objects
        .iter()
        .map(|(name, bytes)| (*name, bytes.len() as u64))
        .collect()
}

#[test]
fn the_samples_are_sound_small_and_of_every_kind() {
    let (tiny, small) = (Sample::tiny().unwrap(), Sample::small().unwrap());
    let wide = Sample::wide().unwrap();
    assert_eq!((tiny.sound(), small.sound()), (Ok(1), Ok(2)));
    assert_eq!(wide.sound(), Ok(2));
    assert_eq!(small.deltas().unwrap(), 1);
    let records = lens(&wide).into_iter();
    let records = records.filter(|(name, _)| name.kind() == ObjectKind::Snapshot);
    assert_eq!(records.count(), 2);
    assert!(tiny.len() < 16 << 10 && small.len() < 64 << 10);
    for kind in [
        ObjectKind::Config,
        ObjectKind::Key,
        ObjectKind::Keyring,
        ObjectKind::Pack,
        ObjectKind::Index,
        ObjectKind::Log,
    ] {
        for sample in [&tiny, &small] {
            assert!(
                lens(sample).iter().any(|(name, _)| name.kind() == kind),
                "{kind:?}"
            );
        }
    }
    assert!(small.objects.len(&ObjectName::Log(9)).is_ok());
}

#[test]
fn a_flipped_bit_in_any_byte_is_named() {
    let sample = Sample::tiny().unwrap();
    let mut cases = Vec::new();
    for (name, len) in lens(&sample) {
        // Another bit in each byte.
        cases.extend((0..len).map(|at| (name, Damage::FlipBit(at * 8 + at % 8))));
    }
    assert_eq!(judged(&sample, &cases), sample.len());
}

#[test]
fn flipped_bits_all_over_a_repository_with_a_history_are_named() {
    let sample = Sample::small().unwrap();
    let mut cases = Vec::new();
    for (name, len) in lens(&sample) {
        cases.extend(
            (0..len * 8)
                .step_by(509)
                .map(|bit| (name, Damage::FlipBit(bit))),
        );
    }
    assert!(judged(&sample, &cases) > 700);
}

#[test]
fn damage_to_a_record_that_is_an_object_of_its_own_is_named() {
    let sample = Sample::wide().unwrap();
    let records: Vec<(ObjectName, u64)> = lens(&sample)
        .into_iter()
        .filter(|(name, _)| name.kind() == ObjectKind::Snapshot)
        .collect();
    let mut cases = Vec::new();
    for (name, len) in &records {
        let bits = (0..len * 8).step_by(4999);
        cases.extend(bits.map(|bit| (*name, Damage::FlipBit(bit))));
        let cuts = (0..*len).step_by(9973).chain([len - 1]);
        cases.extend(cuts.map(|cut| (*name, Damage::Truncate(cut))));
        cases.extend([1, 4096].map(|more| (*name, Damage::Extend(more))));
        cases.push((*name, Damage::Remove));
    }
    assert!(judged(&sample, &cases) > 250);
    let swapped = sample.judge_swap(records[0].0, records[1].0);
    assert_eq!(swapped, Ok(true));
}

#[test]
fn objects_cut_at_any_length_are_named() {
    let sample = Sample::tiny().unwrap();
    let mut cases = Vec::new();
    for (name, len) in lens(&sample) {
        cases.extend((0..len).step_by(7).map(|cut| (name, Damage::Truncate(cut))));
        cases.push((name, Damage::Truncate(len - 1)));
    }
    assert!(judged(&sample, &cases) > 1000);
}

#[test]
fn objects_extended_emptied_blanked_and_lost_are_named() {
    let sample = Sample::small().unwrap();
    let newest = ObjectName::Log(9);
    let mut cases = Vec::new();
    for (name, len) in lens(&sample) {
        cases.extend([1, 12, 4096].map(|more| (name, Damage::Extend(more))));
        cases.push((name, Damage::Truncate(0)));
        cases.push((name, Damage::Zero { offset: 0, len }));
        // What a client without memory cannot notice; the next test is about it.
        if name != newest {
            cases.push((name, Damage::Remove));
        }
    }
    assert!(judged(&sample, &cases) > 100);
}

#[test]
fn objects_exchanged_with_others_of_their_kind_are_named() {
    let sample = Sample::small().unwrap();
    let names: Vec<ObjectName> = sample.objects.objects().into_keys().collect();
    let mut cases = Vec::new();
    for (at, one) in names.iter().enumerate() {
        for other in &names[at + 1..] {
            if one.kind() == other.kind() {
                cases.push((*one, *other));
            }
        }
    }
    let judge = |(one, other): &(ObjectName, ObjectName)| sample.judge_swap(*one, *other);
    let (count, complaints) = judge_all(&cases, &judge);
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    assert!(count > 60);
}

#[test]
fn a_lost_entry_is_a_hole_for_everybody_and_the_newest_for_who_remembers() {
    let sample = Sample::small().unwrap();
    for seq in 1..=8 {
        let store = sample.copy();
        store.remove(&ObjectName::Log(seq));
        let before = store.objects();
        sample.judge(&store, &[ObjectName::Log(seq)]).unwrap();
        let hole = sample.append_to(&store).unwrap_err();
        assert!(hole.contains(&format!("{seq}")), "{hole}");
        assert_eq!(store.objects(), before, "nothing is appended");
    }
    let store = sample.copy();
    let folder = tempfile::tempdir().unwrap();
    sample.look(&store, folder.path()).unwrap();
    store.remove(&ObjectName::Log(9));
    let noticed = sample.look(&store, folder.path()).unwrap_err();
    assert!(noticed.contains("rolled back"), "{noticed}");
}

#[test]
fn what_can_be_made_again_may_be_lost_or_damaged() {
    let sample = Sample::small().unwrap();
    let store = sample.copy();
    let hint = ObjectName::Hint(strongroom_repo::id::RunId::new([1; 16]));
    store.replace(hint, b"no sign of life".to_vec());
    sample.judge(&store, &[]).unwrap();
    // Local caches: each file cut, bent, and gone.
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    let mut files = 0;
    for round in 0.. {
        sample.restore_with_cache(&store, &cache).unwrap();
        let mut all = Vec::new();
        list(&cache, &mut all);
        all.sort();
        let Some(file) = all.get(round / 3) else {
            break;
        };
        let mut bytes = std::fs::read(file).unwrap();
        match round % 3 {
            0 => bytes.truncate(bytes.len() / 2),
            1 => {
                let at = bytes.len() / 3;
                bytes[at] ^= 4;
            }
            _ => bytes.clear(),
        }
        if bytes.is_empty() {
            std::fs::remove_file(file).unwrap();
        } else {
            std::fs::write(file, bytes).unwrap();
        }
        sample.restore_with_cache(&store, &cache).unwrap();
        files += 1;
    }
    assert!(files >= 6, "{files}");
}

/// All files below a folder.
#[expect(
    clippy::unwrap_used,
    reason = "a folder that cannot be read ends the test"
)]
fn list(folder: &std::path::Path, all: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            list(&path, all);
        } else {
            all.push(path);
        }
    }
}
