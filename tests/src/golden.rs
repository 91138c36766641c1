//! What frozen repositories are filled with, and how their manifests are written: shared by the
//! program that makes one and by the tests that read it. Everything follows from names and
//! lengths; nothing here is random.

use std::fmt::Write as _;

/// BLAKE3 of `bytes`, in hex.
#[must_use]
pub fn hash(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

/// `len` bytes that follow from `name` and do not compress.
#[must_use]
pub fn noise(name: &str, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new()
        .update(name.as_bytes())
        .finalize_xof()
        .fill(&mut out);
    out
}

/// A file with one tensor of bf16 of `len` bytes; its first `trained` weights are others for each
/// number of them.
#[must_use]
pub fn tensor(len: usize, trained: usize) -> Vec<u8> {
    let shape = len / 2;
    let header =
        format!(r#"{{"w":{{"dtype":"BF16","shape":[{shape}],"data_offsets":[0,{len}]}}}}"#);
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    let others = noise(&format!("trained {trained}"), trained);
    for (at, mantissa) in noise("weights", shape).into_iter().enumerate() {
        let mantissa = others.get(at).copied().unwrap_or(mantissa);
        // All of about the same size, as weights are.
        file.extend([mantissa, 0x3C + mantissa % 2 * 0x80]);
    }
    file
}

/// `len` bytes of words.
#[must_use]
pub fn text(len: usize) -> String {
    const WORDS: [&str; 8] = [
        "blob", "pack", "index", "tree", "slot", "keyring", "chunk", "extent",
    ];
    let mut out = String::with_capacity(len + 16);
    for (n, byte) in noise("text", len).into_iter().enumerate() {
        if out.len() >= len {
            break;
        }
        let word = WORDS.get(usize::from(byte % 8)).unwrap_or(&"");
        let end = if n % 12 == 11 { '\n' } else { ' ' };
        out.push_str(word);
        out.push(end);
    }
    out.truncate(len);
    out
}

/// A path as a manifest shows it: letters, digits and `._/-` as they are, other bytes as `%XX`.
#[must_use]
pub fn escape(path: &[u8]) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path {
        if byte.is_ascii_alphanumeric() || b"._/-".contains(byte) {
            out.push(char::from(*byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// The bytes that [`escape`] shows; `None` for anything that it does not write.
#[must_use]
pub fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, tail)) = rest.split_first() {
        rest = tail;
        if *byte == b'%' {
            let (hex, tail) = tail.split_at_checked(2)?;
            out.push(u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()?);
            rest = tail;
        } else {
            out.push(*byte);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::{escape, unescape};

    #[test]
    fn any_path_survives_a_manifest() {
        let path: Vec<u8> = (1..=255).collect();
        assert_eq!(unescape(&escape(&path)), Some(path));
        assert_eq!(escape(b"a/b-c.d e"), "a/b-c.d%20e");
    }
}
