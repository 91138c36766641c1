//! The fuzz corpora, replayed through the bodies that the fuzz targets call. What fuzzing once
//! found is a seed here, so that it stays fixed without a fuzzer at hand.

use std::{collections::BTreeSet, fs};

use strongroom_chunker as chunker;
use strongroom_core as core;
use strongroom_repo as repo;

use super::root;

type FuzzBody = fn(&[u8]);

/// Every body, by the name of its target.
const BODIES: [(&str, FuzzBody); 27] = [
    ("blocks", chunker::fuzz::fuzz_blocks),
    ("config", repo::format::config::fuzz_config),
    ("cuts", chunker::fuzz::fuzz_cuts),
    ("decode", repo::codec::fuzz_decode),
    ("delta", repo::codec::fuzz_delta),
    ("delta_round_trip", repo::codec::fuzz_delta_round_trip),
    ("extents", core::format::extents::fuzz_extents),
    ("frame", repo::format::frame::fuzz_frame),
    ("hint", repo::prune::hint::fuzz_hint),
    ("index", repo::format::index::fuzz_index),
    ("keyring", repo::format::keyring::fuzz_keyring),
    ("layout", chunker::layout::fuzz_layout),
    ("lists", core::source::lists::fuzz_lists),
    ("log_body", repo::format::log_body::fuzz_log_body),
    ("log_entry", repo::format::log::fuzz_log_entry),
    ("log_segment", repo::log::segment::fuzz_log_segment),
    ("pack", repo::format::pack::fuzz_pack),
    ("pack_bytes", repo::pack::reader::fuzz_pack_bytes),
    ("patterns", core::source::pattern::fuzz_patterns),
    ("pickle", chunker::layout::fuzz_pickle),
    ("record", repo::format::record::fuzz_record),
    ("round_trip", repo::codec::fuzz_round_trip),
    ("sealed", repo::crypto::fuzz_sealed),
    ("slot", repo::format::slot::fuzz_slot),
    ("snapshot", core::format::snapshot::fuzz_snapshot),
    ("table", repo::index::fuzz_table),
    ("tree", core::format::tree::fuzz_tree),
];

#[test]
fn every_seed_of_every_corpus_passes_its_body() {
    for (name, body) in BODIES {
        let mut seeds = 0;
        for entry in fs::read_dir(root().join("fuzz/corpus").join(name)).unwrap() {
            let path = entry.unwrap().path();
            // A failing seed is named by the last line before the panic.
            println!("{}", path.display());
            body(&fs::read(path).unwrap());
            seeds += 1;
        }
        assert!(seeds > 0, "no seed for {name}");
    }
}

#[test]
fn every_corpus_and_every_target_is_replayed() {
    let replayed: BTreeSet<String> = BODIES.iter().map(|(name, _)| (*name).to_owned()).collect();
    for folder in ["fuzz/corpus", "fuzz/fuzz_targets"] {
        let found: BTreeSet<String> = fs::read_dir(root().join(folder))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
            .collect();
        assert_eq!(found, replayed, "{folder}");
    }
}

#[test]
fn every_object_of_a_frozen_repository_passes_every_body() {
    // Real objects and their halves are seeds too good to leave out.
    let mut open = vec![root().join("tests/golden")];
    let mut objects = Vec::new();
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                objects.push(fs::read(path).unwrap());
            }
        }
    }
    assert!(objects.len() > 10);
    for (_, body) in BODIES {
        for object in &objects {
            body(object);
            body(&object[..object.len() / 2]);
        }
    }
}
