//! Packs of several pieces: the quick way sees all of them, and what it does not like is looked at
//! once more.

use super::*;

/// A repository with packs of three pieces and more, and these.
fn large(store: &MemBackend) -> (Repository, Vec<PackId>) {
    let config = ConfigBody {
        pack_target: 24 << 20,
        ..testing::config()
    };
    // Lengths that fall on no border; one blob is longer than a piece.
    let lens = [900_001, 9 << 20, 77, 700_123, 1, 800_456].into_iter();
    let repo = saved(store, config, (0..).zip(lens.cycle()).take(30));
    let index = repo.index();
    let packs = index.packs().filter(|pack| pack.len > 17 << 20);
    let packs: Vec<_> = packs.map(|pack| pack.id).collect();
    assert!(!packs.is_empty());
    (repo, packs)
}

#[test]
fn a_pack_of_several_pieces_is_checked_to_its_end() {
    let store = MemBackend::new();
    let (repo, packs) = large(&store);
    let report = check(&repo, ReadData::All);
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    assert_eq!(report.read_blobs, 31);
    assert_eq!(report.read, report.packs);
    for pack in packs {
        let name = ObjectName::Pack(pack);
        let sound = store.objects()[&name].to_vec();
        for at in [
            0,
            50,
            200,
            8 << 20,
            (8 << 20) - 1,
            17 << 20,
            sound.len() - 60,
        ] {
            let mut bytes = sound.clone();
            bytes[at] ^= 1;
            store.replace(name, bytes);
            let report = check(&repo, ReadData::All);
            let [finding] = report.findings.as_slice() else {
                panic!("byte {at}: {:?}", report.findings);
            };
            assert_eq!(finding.object, Some(name), "byte {at}");
            assert_eq!(finding.severity, Severity::Error, "byte {at}");
        }
        store.replace(name, sound);
    }
}

#[test]
fn what_is_read_badly_once_is_a_warning_and_no_verdict() {
    let store = MemBackend::new();
    let (repo, packs) = large(&store);
    drop(repo);
    let name = ObjectName::Pack(packs[0]);
    // The tail, and three pieces.
    for read in 1..=4 {
        for effect in [Effect::FlipRead, Effect::Fail(BackendErrorKind::Io)] {
            let trigger = Trigger::call(CallKind::ReadAt, read).of_object(name);
            let script = FaultScript::new(read).once(trigger, effect);
            let faulty = Arc::new(FaultBackend::new(store.clone(), script));
            let secret = Secret::Password(b"pw".to_vec());
            let repo = Repository::open(faulty, seeded(2), secret, OpenOptions::default());
            let report = check(&repo.unwrap(), ReadData::All);
            let [finding] = report.findings.as_slice() else {
                panic!("read {read}: {:?}", report.findings);
            };
            assert_eq!(finding.object, Some(name));
            assert_eq!(finding.severity, Severity::Warning);
            assert!(matches!(finding.what, Problem::Unsteady(_)), "{finding:?}");
            assert!(report.verdicts.is_empty() && report.bad_packs.is_empty());
            assert_eq!(report.read_blobs, 31, "all the same");
        }
    }
}
