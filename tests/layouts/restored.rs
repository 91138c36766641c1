//! Files of every layout, whole and broken, through a repository and back.

use std::{
    fs,
    path::Path,
    sync::{Arc, atomic::AtomicBool},
};

use strongroom_chunker::{fuzz::random, layout::SegmentKind};
use strongroom_core::{
    archive::{BackupOptions, BackupReport, backup},
    format::snapshot::Snapshot,
    observer::{Recorder, Silent},
    restore::{RestoreOptions, restore},
};
use strongroom_repo::{
    backend::MemBackend,
    codec::Codec,
    crypto::BlobKind,
    env::testing::seeded,
    format::config::ConfigBody,
    repository::{Repository, testing},
    writer::WriterOptions,
};

use super::{described, sample, samples};

const GEAR: u8 = 1;
const FASTCDC: u8 = 2;

fn create(chunker: u8) -> Repository {
    let config = ConfigBody {
        chunker,
        chunk_min: 256 << 10,
        chunk_avg: 1 << 20,
        chunk_max: 4 << 20,
        ..testing::config()
    };
    let made = testing::create(Arc::new(MemBackend::new()), seeded(1), config);
    made.unwrap().0
}

fn back_up(
    repo: &Repository,
    from: &Path,
    workers: usize,
    parent: Option<&BackupReport>,
) -> BackupReport {
    let parent = parent.map(|report| {
        let id = report.snapshot.unwrap();
        let record = repo.load_snapshot(id).unwrap();
        (id, Snapshot::decode(&record).unwrap())
    });
    let options = BackupOptions {
        parent,
        writer: WriterOptions {
            pack_target: 4 << 20,
            ..WriterOptions::default()
        },
        workers,
        ..BackupOptions::new(from.to_path_buf())
    };
    let heard = Recorder::default();
    let report = backup(repo, &options, &heard, &AtomicBool::new(false)).unwrap();
    assert_eq!(heard.problems(), Vec::<String>::new());
    report
}

/// Whether a backup of `from` gives every file back.
fn check(repo: &Repository, from: &Path, workers: usize) -> BackupReport {
    check_next(repo, from, workers, None)
}

/// The same of what came after another backup.
fn check_next(
    repo: &Repository,
    from: &Path,
    workers: usize,
    parent: Option<&BackupReport>,
) -> BackupReport {
    let report = back_up(repo, from, workers, parent);
    let to = tempfile::tempdir().unwrap();
    let options = RestoreOptions::new(to.path().to_path_buf());
    restore(
        repo,
        report.tree,
        &options,
        &Silent,
        &AtomicBool::new(false),
    )
    .unwrap();
    let mut count = 0;
    for entry in fs::read_dir(from).unwrap() {
        let name = entry.unwrap().file_name();
        let (old, new) = (from.join(&name), to.path().join(&name));
        assert!(
            fs::read(old).unwrap() == fs::read(new).unwrap(),
            "{name:?} differs"
        );
        count += 1;
    }
    assert!(count > 0);
    report
}

#[test]
fn samples_come_back_whole_cut_short_and_moved() {
    let from = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(samples()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let data = sample(&name);
        let write = |what: &str, bytes: &[u8]| {
            fs::write(from.path().join(format!("{name}-{what}")), bytes).unwrap();
        };
        write("whole", &data);
        write("short", &data[..data.len() * 2 / 3]);
        write("long", &[&data[..], b"something behind it"].concat());
        write("moved", &[&b"x"[..], &data].concat());
        let mut lying = data.clone();
        let at = lying.len().min(20) - 1;
        lying[at] ^= 0x41;
        write("lying", &lying);
    }
    for chunker in [GEAR, FASTCDC] {
        check(&create(chunker), from.path(), 2);
    }
}

#[test]
fn floats_that_programs_wrote_are_cut_at_the_borders_of_tensors_and_stored_as_planes() {
    for name in [
        "weights.pt",
        "weights.safetensors",
        "weights.gguf",
        "weights-big.gguf",
    ] {
        let from = tempfile::tempdir().unwrap();
        let data = sample(name);
        fs::write(from.path().join(name), &data).unwrap();
        let repo = create(GEAR);
        check(&repo, from.path(), 2);
        let mut seen = Vec::new();
        for segment in described(&data).layout.segments() {
            let SegmentKind::Tensor { dtype, .. } = segment.kind else {
                continue;
            };
            let at = |offset: u64| usize::try_from(offset).unwrap();
            let plain = &data[at(segment.range.start)..at(segment.range.end)];
            let id = repo.blob_id(BlobKind::Data, plain);
            let found = repo.index().find(&id).unwrap();
            let found = found.unwrap_or_else(|| panic!("{name}: {segment:?} is no blob"));
            seen.push((dtype.name(), Codec::try_from(found.entry.codec).unwrap()));
        }
        for wanted in [("f32", Codec::Planes32), ("f16", Codec::PlanesF16)] {
            assert!(seen.contains(&wanted), "{name}: {seen:?}");
        }
        let has_bf16 = seen.contains(&("bf16", Codec::Planes16));
        assert!(has_bf16 || name == "weights-big.gguf", "{name}: {seen:?}");
    }
}

#[test]
fn samples_of_a_next_generation_are_stored_as_differences_and_come_back() {
    let from = tempfile::tempdir().unwrap();
    let large: Vec<String> = fs::read_dir(samples())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| sample(name).len() >= 48 << 10 || name.contains("-of-00003"))
        .chain(
            [
                "wide-big.npy",
                "wide-half.npy",
                "wide.npz",
                "torch.safetensors",
                "state.pt",
            ]
            .map(str::to_owned),
        )
        .chain(
            [
                "little.gguf",
                "overlap.safetensors",
                "empty.safetensors",
                "awkward.safetensors",
            ]
            .map(str::to_owned),
        )
        .collect();
    let write = |generation: u8| {
        for name in &large {
            let mut data = sample(name);
            // In the middle, where no header is.
            let len = data.len();
            let payload = data.iter_mut().take(len * 3 / 4).skip(len / 2);
            payload.step_by(98).for_each(|byte| *byte ^= generation);
            // One that grows, one that loses its end.
            if generation == 2 && name.ends_with(".gguf") {
                data.truncate(len - 1001);
            } else if generation == 2 && name.ends_with(".npy") {
                data.extend(b"behind");
            }
            fs::write(from.path().join(name), data).unwrap();
        }
    };
    for chunker in [GEAR, FASTCDC] {
        let repo = create(chunker);
        write(0);
        let mut last = check(&repo, from.path(), 2);
        let first = last.summary.data_added_packed;
        for generation in [1, 2, 3] {
            write(generation);
            last = check_next(&repo, from.path(), 2, Some(&last));
            let added = last.summary.data_added_packed;
            assert!(added < first / 2, "{added} of {first} in {generation}");
        }
    }
}

/// A safetensors file of one tensor of `len` bytes behind a header of an odd length.
fn tensor_file(dtype: &str, width: usize, data: &[u8]) -> Vec<u8> {
    let json = format!(
        r#"{{"w":{{"dtype":"{dtype}","shape":[{}],"data_offsets":[0,{}]}}}} "#,
        data.len() / width,
        data.len()
    );
    let json = format!("{json:<width$}", width = json.len() | 1);
    [
        &(json.len() as u64).to_le_bytes()[..],
        json.as_bytes(),
        data,
    ]
    .concat()
}

/// Floats of a narrow range, with every kind of special value among them.
fn floats(count: usize) -> Vec<u8> {
    let specials = [
        0x7fc0_0000_u32,
        0x7f80_0001,
        0xffc1_2345,
        0x7f80_0000,
        1,
        0x8000_0001,
    ];
    let noise = random(4 * count, 3);
    let bits = noise
        .as_chunks::<4>()
        .0
        .iter()
        .enumerate()
        .map(|(n, bytes)| {
            if n % 1000 == 0 {
                return specials[n / 1000 % specials.len()];
            }
            let raw = u32::from_le_bytes(*bytes);
            (raw & 0x807f_ffff) | ((115 + ((raw >> 23) & 7)) << 23)
        });
    bits.flat_map(u32::to_le_bytes).collect()
}

/// An image with runs of zeros of many lengths, written and not.
fn image(head: &str, len: usize, seed: u64) -> Vec<u8> {
    let mut data = random(len, seed);
    for n in 0..60 {
        let at = ((n * 37 % 199) * len / 200) & !4095;
        let end = (at + 4096 * (n % 23)).min(len);
        data[at..end].fill(0);
    }
    let head = sample(head);
    data[..head.len()].copy_from_slice(&head);
    data
}

#[test]
fn big_files_come_back_whatever_the_number_of_workers() {
    let from = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(from.path().join(name), bytes).unwrap();
    let weights = floats(5 << 20);
    write("odd.safetensors", &tensor_file("F32", 4, &weights));
    write(
        "half.safetensors",
        &tensor_file("BF16", 2, &weights[..17 << 20]),
    );
    write("disk.img", &image("ext4.head", 20 << 20, 5));
    write("odd.img", &image("qcow2.head", (18 << 20) + 5001, 6));
    write("page.db", &image("page16384.db", 17 << 20, 7));
    write("plain", &random(17 << 20, 8));
    let mut trees = Vec::new();
    for workers in [1, 2, 7] {
        trees.push(check(&create(GEAR), from.path(), workers).tree);
    }
    assert_eq!(trees[0], trees[1]);
    assert_eq!(trees[0], trees[2]);
    check(&create(FASTCDC), from.path(), 2);
}

#[test]
fn zeros_that_were_written_to_an_image_take_no_room() {
    let from = tempfile::tempdir().unwrap();
    let mut data = vec![0; 40 << 20];
    let noise = random(1 << 20, 9);
    data[8 << 20..9 << 20].copy_from_slice(&noise);
    let head = sample("ext4.head");
    data[..head.len()].copy_from_slice(&head);
    fs::write(from.path().join("disk.img"), &data).unwrap();
    let report = check(&create(GEAR), from.path(), 2);
    let added = report.summary.data_added;
    assert!(added < (1 << 20) + (100 << 10), "{added}");
}

#[test]
fn two_images_of_the_same_files_at_other_places_share_most_chunks() {
    let from = tempfile::tempdir().unwrap();
    let repo = create(GEAR);
    let files: Vec<Vec<u8>> = (0..8).map(|n| random(4 << 20, 20 + n)).collect();
    let build = |order: [usize; 8], gap: u64| {
        let mut data = image("ext4.head", 1 << 20, gap);
        for file in order {
            data.extend(random(usize::try_from(gap).unwrap() * 4096, gap));
            data.extend(&files[file]);
        }
        data
    };
    let path = from.path().join("disk.img");
    fs::write(&path, build([0, 1, 2, 3, 4, 5, 6, 7], 3)).unwrap();
    let first = check(&repo, from.path(), 2).summary.data_added;
    fs::write(&path, build([3, 1, 7, 0, 6, 2, 5, 4], 4)).unwrap();
    let second = check(&repo, from.path(), 2).summary.data_added;
    // Eight files with their ends, and what lies between them.
    assert!(second < first / 5, "{second} of {first}");
}

#[test]
fn the_same_tensors_in_another_order_and_format_are_stored_once() {
    let from = tempfile::tempdir().unwrap();
    let repo = create(GEAR);
    let weights = floats(4 << 20);
    fs::write(from.path().join("a"), tensor_file("F32", 4, &weights)).unwrap();
    let first = check(&repo, from.path(), 2).summary.data_added;
    assert!(first > 15 << 20);
    let mut npy = b"\x93NUMPY\x01\0\x76\0".to_vec();
    let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (4194304,), }";
    npy.extend(format!("{header:<117}\n").as_bytes());
    npy.extend(&weights);
    fs::write(from.path().join("b.npy"), npy).unwrap();
    let second = check(&repo, from.path(), 2).summary.data_added;
    assert!(second < 10_000, "{second}");
}

#[test]
fn floats_take_less_room_in_either_byte_order() {
    let weights = floats(4 << 20);
    let swapped: Vec<u8> = weights
        .chunks(4)
        .flat_map(|f| f.iter().rev().copied())
        .collect();
    for (descr, data) in [("<f4", &weights), (">f4", &swapped)] {
        let from = tempfile::tempdir().unwrap();
        let mut npy = b"\x93NUMPY\x01\0\x76\0".to_vec();
        let header =
            format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': (4194304,), }}");
        npy.extend(format!("{header:<117}\n").as_bytes());
        npy.extend(data);
        fs::write(from.path().join("w.npy"), npy).unwrap();
        let packed = check(&create(GEAR), from.path(), 2)
            .summary
            .data_added_packed;
        let share = packed * 1000 / weights.len() as u64;
        assert!(share < 900, "{descr}: {share}");
    }
}
