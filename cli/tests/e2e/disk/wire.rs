//! The bytes of the protocol: requests as the kernel writes them, answers as it reads them.

/// Bytes of one transfer at most.
pub(super) const MAX_WRITE: u32 = 128 << 10;
/// A request with its header.
pub(super) const REQUEST: usize = MAX_WRITE as usize + 4096;

pub(super) const LOOKUP: u32 = 1;
pub(super) const FORGET: u32 = 2;
pub(super) const GETATTR: u32 = 3;
pub(super) const SETATTR: u32 = 4;
pub(super) const MKDIR: u32 = 9;
pub(super) const UNLINK: u32 = 10;
pub(super) const RMDIR: u32 = 11;
pub(super) const RENAME: u32 = 12;
pub(super) const LINK: u32 = 13;
pub(super) const OPEN: u32 = 14;
pub(super) const READ: u32 = 15;
pub(super) const WRITE: u32 = 16;
pub(super) const STATFS: u32 = 17;
pub(super) const RELEASE: u32 = 18;
pub(super) const FSYNC: u32 = 20;
pub(super) const FLUSH: u32 = 25;
pub(super) const INIT: u32 = 26;
pub(super) const OPENDIR: u32 = 27;
pub(super) const READDIR: u32 = 28;
pub(super) const RELEASEDIR: u32 = 29;
pub(super) const FSYNCDIR: u32 = 30;
pub(super) const CREATE: u32 = 35;
pub(super) const INTERRUPT: u32 = 36;
pub(super) const BATCH_FORGET: u32 = 42;
pub(super) const FALLOCATE: u32 = 43;
pub(super) const RENAME2: u32 = 45;

/// Bytes of an answer, or a negative number of an error.
pub(super) type Reply = Result<Vec<u8>, i32>;

/// A request: a header of 40 bytes, and what its kind has. Offsets count from behind the header.
pub(super) struct Request<'a>(pub(super) &'a [u8]);

impl Request<'_> {
    pub(super) fn u32(&self, at: usize) -> u32 {
        u32::from_ne_bytes(self.0[40 + at..44 + at].try_into().unwrap())
    }

    pub(super) fn u64(&self, at: usize) -> u64 {
        u64::from_ne_bytes(self.0[40 + at..48 + at].try_into().unwrap())
    }

    pub(super) fn kind(&self) -> u32 {
        u32::from_ne_bytes(self.0[4..8].try_into().unwrap())
    }

    pub(super) fn node(&self) -> u64 {
        u64::from_ne_bytes(self.0[16..24].try_into().unwrap())
    }

    /// The name that begins there.
    pub(super) fn name(&self, at: usize) -> Vec<u8> {
        let bytes = self.0[40 + at..].iter();
        bytes.copied().take_while(|byte| *byte != 0).collect()
    }

    /// The bytes of a write, at most so many.
    pub(super) fn content(&self, at_most: Option<u32>) -> &[u8] {
        let len = self.u32(16).min(at_most.unwrap_or(u32::MAX));
        &self.0[80..80 + len as usize]
    }

    /// Bytes of files that it moves.
    pub(super) fn transferred(&self, answer: &Reply) -> u64 {
        match (self.kind(), answer) {
            (READ, Ok(body)) => body.len() as u64,
            (WRITE, Ok(_)) => u64::from(self.u32(16)),
            _ => 0,
        }
    }
}

/// Half of what a write wants to write, and one byte at least.
pub(super) fn half(write: &Request<'_>) -> u32 {
    write.u32(16).div_ceil(2)
}

/// An answer with its header.
pub(super) fn reply(request: &Request<'_>, answer: Reply) -> Vec<u8> {
    let (error, body) = match answer {
        Ok(body) => (0, body),
        Err(error) => (error, Vec::new()),
    };
    let mut reply = Vec::new();
    reply.extend(u32::try_from(16 + body.len()).unwrap().to_ne_bytes());
    reply.extend(i32::to_ne_bytes(error));
    reply.extend(&request.0[8..16]);
    reply.extend(body);
    reply
}

pub(super) fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// Version 7.31, no capabilities but writes larger than a page.
pub(super) fn init() -> Vec<u8> {
    const BIG_WRITES: u32 = 1 << 5;
    let mut out = Vec::new();
    // Version, read-ahead, capabilities, requests under way (as the kernel likes), longest write.
    for word in [7, 31, 128 << 10, BIG_WRITES, 0, MAX_WRITE] {
        out.extend(u32::to_ne_bytes(word));
    }
    out.resize(64, 0);
    out
}

/// A disk of 16 GiB, all of it free.
pub(super) fn statfs() -> Vec<u8> {
    let blocks = 4 << 20;
    let mut out = words(&[blocks, blocks, blocks, 1 << 20, 1 << 20]);
    for word in [4096, 255, 4096_u32] {
        out.extend(word.to_ne_bytes());
    }
    out.resize(80, 0);
    out
}

/// An entry of a folder.
pub(super) fn dirent(node: u64, name: &[u8], is_folder: bool) -> Vec<u8> {
    // The node is also where the next listing goes on.
    let mut out = words(&[node, node]);
    let kind: u32 = if is_folder { 4 } else { 8 };
    out.extend(u32::try_from(name.len()).unwrap().to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend(name);
    out.resize(out.len().next_multiple_of(8), 0);
    out
}
