//! Archives that hold tensors as stored members: what `torch.save` writes, and NumPy's `.npz`.
//!
//! Lives here: which members are tensors, and what they are called. Does not live here: the
//! directory of an archive (`zip`), the types and names that a checkpoint's pickle tells
//! (`pickle`), the header of an array (`numpy`).
//!
//! Must stay true: every refusal is `None`; where only the pickle cannot be followed, the members
//! are tensors of unknown type under their own names.

use std::{collections::HashMap, ops::Range};

use super::{
    Dtype, Format, numpy, pickle,
    source::Source,
    tensors::{Tensor, has_duplicates, has_len},
    zip::{self, Member},
};

/// Longest pickle that is followed.
const MAX_PICKLE: u64 = 16 << 20;
const PICKLE: &str = "data.pkl";
const BYTE_ORDER: &str = "byteorder";
const BIG: &[u8] = b"big";
const ARRAY: &str = ".npy";

/// The tensors of an archive, and which kind of archive it is.
pub(super) fn tensors(source: &mut Source<'_>) -> Option<(Format, Vec<Tensor>)> {
    let members = zip::members(source)?;
    let is_pickle = |member: &Member| folder_of(&member.name, PICKLE).is_some();
    let mut pickles = members.iter().filter(|member| is_pickle(member));
    let (format, tensors) = match (pickles.next(), pickles.next()) {
        (Some(pickle), None) => (Format::PyTorch, checkpoint(source, &members, pickle)?),
        (None, _) => (Format::Npz, arrays(source, &members)?),
        _ => return None,
    };
    Some((format, tensors))
}

/// What stands before the last part of a path, where that part is `name`.
fn folder_of<'p>(path: &'p str, name: &str) -> Option<&'p str> {
    path.strip_suffix(name)?.strip_suffix('/')
}

fn arrays(source: &mut Source<'_>, members: &[Member]) -> Option<Vec<Tensor>> {
    let mut tensors = Vec::new();
    for member in members {
        let name = member.name.strip_suffix(ARRAY)?;
        // One that does not add up, an array of objects for instance, is left plain.
        let array = |range: &Range<u64>| numpy::array(source, range, name);
        tensors.extend(member.stored.as_ref().and_then(array));
    }
    (!has_duplicates(&tensors)).then_some(tensors)
}

fn checkpoint(source: &mut Source<'_>, members: &[Member], pickle: &Member) -> Option<Vec<Tensor>> {
    let folder = folder_of(&pickle.name, PICKLE)?;
    let by_name: HashMap<&str, &Member> = members.iter().map(|m| (m.name.as_str(), m)).collect();
    if by_name.len() != members.len() {
        return None;
    }
    let read = |source: &mut Source<'_>, range: &Range<u64>| source.bytes(range.clone());
    let order = by_name.get(format!("{folder}/{BYTE_ORDER}").as_str());
    let order = order.and_then(|member| member.stored.as_ref());
    let order = order.filter(|range| range.end - range.start <= 8);
    let big_endian = order.and_then(|range| read(source, range)).as_deref() == Some(BIG);
    let followed = pickle.stored.as_ref();
    let followed = followed.filter(|range| range.end - range.start <= MAX_PICKLE);
    let followed = followed.and_then(|range| pickle::storages(&read(source, range)?));
    let followed = followed.unwrap_or_default();
    let prefix = format!("{folder}/data/");
    let mut tensors = Vec::new();
    for member in members {
        let Some((key, range)) = member
            .name
            .strip_prefix(&prefix)
            .zip(member.stored.as_ref())
        else {
            continue;
        };
        let range = range.clone();
        let len = range.end - range.start;
        let known = followed.get(key);
        let known = known.filter(|known| has_len(known.dtype, &[known.count], len));
        tensors.push(Tensor {
            name: known
                .and_then(|known| known.name.clone())
                .unwrap_or_else(|| format!("data/{key}")),
            dtype: known.map_or(Dtype::Unknown, |known| known.dtype),
            big_endian,
            shape: known.and_then(|known| known.shape.clone()),
            range,
        });
    }
    Some(tensors)
}
