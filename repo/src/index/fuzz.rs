//! Body of the fuzz target for tables. Checksums hide almost all bytes from a fuzzer, so they are
//! made right here: what is tested is that a table with wrong content and right checksums answers
//! with errors, never with a panic or without end.

use xxhash_rust::xxh3::xxh3_64;

use super::{
    IN_MEMORY, Index,
    build::Sink,
    layout::{Counts, HEADER_LEN, Layout, block_sum},
    merge::MergePlan,
    table::{Bytes, Table},
};
use crate::format::cursor::Reader;

/// Opens `data` as a table, once as it is and once with counts from its first eight bytes and
/// right checksums, and asks it everything.
#[doc(hidden)]
pub fn fuzz_table(data: &[u8]) {
    for bytes in [data.to_vec(), with_right_sums(data)] {
        let Ok(table) = Table::open_checking(Bytes::Owned(bytes), IN_MEMORY, None, 0) else {
            continue;
        };
        if let Ok(plan) = MergePlan::new(&[&table, &table], &|_| true) {
            let _ = plan.write(&[&table, &table], IN_MEMORY, Sink::Memory(Vec::new()));
        }
        let mut index = Index::default();
        index.attach(table, None);
        ask(&index);
    }
}

fn ask(index: &Index) {
    for pack in index.packs() {
        for entry in index.entries_of(pack.number).unwrap_or_default() {
            let _ = index.find(&entry.id);
        }
        let _ = index.pack_by_id(&pack.id);
    }
    for id in index.blob_ids().into_iter().flatten().map_while(Result::ok) {
        let _ = index.copies(&id);
    }
}

/// A table with the counts that stand in the first bytes of `data` and the sections that follow,
/// cut or filled up with zeros.
fn with_right_sums(data: &[u8]) -> Vec<u8> {
    let mut reader = Reader::new(data, "fuzz input");
    let mut small = || u32::from(reader.u16().unwrap_or(0) % 600);
    let entries = small();
    let counts = Counts {
        entries,
        packs: small(),
        covered: small(),
        bases: small().min(entries),
        duplicates: entries % 2 == 1,
    };
    let len = usize::try_from(Layout::of(&counts).sums).unwrap_or(HEADER_LEN);
    let mut body = reader.rest().to_vec();
    body.resize(len - HEADER_LEN, 0);
    let sums: Vec<u8> = body
        .chunks(HEADER_LEN)
        .zip(0..)
        .flat_map(|(block, number)| block_sum(block, number).to_le_bytes())
        .collect();
    let mut out = counts.encode(IN_MEMORY, xxh3_64(&sums));
    out.extend_from_slice(&body);
    out.extend_from_slice(&sums);
    out
}
