//! What is in a file: tensors, pages of a database, blocks on a grid, or plain bytes.
//!
//! Lives here: recognition from a file's own structure (never from its name), the segments of a
//! file, and the fixed pieces that tensors and databases are cut into. Does not live here: the
//! header grammars (one module each), the cuts of plain content (`chunker`) and of blocks
//! (`blocks`).
//!
//! Must stay true: the segments of a [`Layout`] cover the file exactly, in order, each at least one
//! byte long; and nothing a header says can fail, allocate without bound or be trusted: what does
//! not add up is plain. A layout only chooses cuts, so that a wrong guess costs space, never
//! content.

mod archive;
mod dtype;
mod gguf;
mod grids;
mod numpy;
mod pickle;
mod safetensors;
mod source;
mod tensors;
mod zip;

use std::ops::Range;

pub use dtype::Dtype;
#[cfg(any(test, feature = "testing"))]
pub use pickle::fuzz_pickle;
use source::Source;
pub use tensors::Tensor;

/// Length of the pieces of a tensor in bytes, counted from the tensor's start: a multiple of every
/// element size, near the average of the default chunk sizes. Part of the repository format.
pub const TENSOR_PIECE: u64 = 1 << 20;
/// So many pages of a database are a piece.
const PAGES: u64 = 64;
/// No piece is shorter, in bytes: each takes an entry of the index.
const MIN_PAGES_PIECE: u64 = 64 << 10;
/// No piece is longer, and this is a multiple of each.
pub const MAX_PAGES_PIECE: u64 = 256 << 10;

/// Bytes of the file's start that say whether more has to be looked at.
const HEAD: usize = 16;
const SQLITE_MAGIC: &[u8; 16] = b"SQLite format 3\0";
const IDENTITY_CONTEXT: &str = "strongroom v1 tensor identity";

/// Fills a buffer from an offset of a file and says how many bytes it got.
pub type ReadAt<'a, E> = dyn FnMut(u64, &mut [u8]) -> Result<usize, E> + 'a;

/// Files shorter than this are plain: they are one chunk, or near it, and not worth more blobs.
const LEAST_FILE: u64 = 32 << 10;

/// Finds the segments of a file of `file_len` bytes. Of short files nothing is asked for, of most
/// others no more than the first 16 bytes.
///
/// # Errors
/// What `read` returns; nothing else fails.
///
/// ```
/// use strongroom_chunker::layout::recognise;
///
/// let file = b"Neither tensors nor blocks.";
/// let mut read = |offset: u64, buffer: &mut [u8]| -> std::io::Result<usize> {
///     let rest = &file[offset as usize..];
///     let len = rest.len().min(buffer.len());
///     buffer[..len].copy_from_slice(&rest[..len]);
///     Ok(len)
/// };
/// assert!(recognise(file.len() as u64, &mut read)?.is_plain());
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn recognise<E>(file_len: u64, read: &mut ReadAt<'_, E>) -> Result<Layout, E> {
    if file_len < LEAST_FILE {
        return Ok(Layout::plain(file_len));
    }
    describe(file_len, read).map(|description| description.layout)
}

/// What the file says of itself, and the segments that it has where it is long enough.
///
/// # Errors
/// What `read` returns; nothing else fails.
pub fn describe<E>(file_len: u64, read: &mut ReadAt<'_, E>) -> Result<Description, E> {
    let mut failure = None;
    let mut quiet = |offset: u64, buffer: &mut [u8]| {
        read(offset, buffer).unwrap_or_else(|error| {
            failure.get_or_insert(error);
            0
        })
    };
    let mut source = Source::new(file_len, &mut quiet);
    let found = find(&mut source).unwrap_or_else(|| Description::plain(file_len));
    failure.map_or(Ok(found), Err)
}

fn find(source: &mut Source<'_>) -> Option<Description> {
    let file_len = source.len();
    let head: [u8; HEAD] = source.array(0)?;
    let (format, tensors) = if head == *SQLITE_MAGIC {
        let page = grids::sqlite_page(source)?;
        return Some(Description {
            format: Format::Sqlite,
            tensors: Vec::new(),
            layout: Layout::whole(file_len, SegmentKind::Pages { page }),
        });
    } else if head.starts_with(gguf::MAGIC) {
        (Format::Gguf, gguf::tensors(source)?)
    } else if head.starts_with(zip::MAGIC) {
        archive::tensors(source)?
    } else if head.starts_with(numpy::MAGIC) {
        (Format::Npy, vec![numpy::array(source, &(0..file_len), "")?])
    } else if safetensors::is_likely(&head, file_len) {
        (Format::Safetensors, safetensors::tensors(&head, source)?)
    } else {
        return grids::image(source).map(|format| Description::image(format, file_len));
    };
    let tensors = tensors::in_order(tensors, file_len)?;
    let segments = tensors::arrange(&tensors, file_len);
    let layout = Layout { segments };
    (!tensors.is_empty()).then_some(Description {
        format,
        tensors,
        layout,
    })
}

/// What a file is recognised as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// Nothing that is known.
    Plain,
    /// Tensors behind a JSON header.
    Safetensors,
    /// Tensors of a GGML program.
    Gguf,
    /// An archive that `torch.save` wrote.
    PyTorch,
    /// An array of NumPy.
    Npy,
    /// An archive of such arrays.
    Npz,
    /// An SQLite database.
    Sqlite,
    /// A file system: ext2, ext3, ext4.
    Ext,
    /// A file system.
    Xfs,
    /// A file system.
    Btrfs,
    /// A disk with a GUID partition table.
    Gpt,
    /// A disk with a table of four partitions.
    Mbr,
    /// A virtual disk of QEMU.
    Qcow2,
}

impl Format {
    /// The name for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Safetensors => "safetensors",
            Self::Gguf => "gguf",
            Self::PyTorch => "pytorch",
            Self::Npy => "npy",
            Self::Npz => "npz",
            Self::Sqlite => "sqlite",
            Self::Ext => "ext",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
            Self::Gpt => "gpt",
            Self::Mbr => "mbr",
            Self::Qcow2 => "qcow2",
        }
    }
}

/// A layout, and what the file says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// What the file is.
    pub format: Format,
    /// Its tensors that have bytes, by their place.
    pub tensors: Vec<Tensor>,
    /// How it is cut.
    pub layout: Layout,
}

impl Description {
    fn plain(file_len: u64) -> Self {
        Self {
            format: Format::Plain,
            tensors: Vec::new(),
            layout: Layout::plain(file_len),
        }
    }

    fn image(format: Format, file_len: u64) -> Self {
        Self {
            format,
            tensors: Vec::new(),
            layout: Layout::disk(file_len),
        }
    }
}

/// A file as a list of segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    segments: Vec<LayoutSegment>,
}

impl Layout {
    /// One plain segment; none if the file is empty.
    #[must_use]
    pub fn plain(file_len: u64) -> Self {
        Self::whole(file_len, SegmentKind::Plain)
    }

    /// A disk, whatever is on it: one segment of blocks of 4 KiB.
    #[must_use]
    pub fn disk(len: u64) -> Self {
        let grid = grids::DISK_GRID;
        Self::whole(len, SegmentKind::Blocks { grid })
    }

    fn whole(len: u64, kind: SegmentKind) -> Self {
        let segment = LayoutSegment {
            range: 0..len,
            kind,
        };
        Self {
            segments: if len == 0 { Vec::new() } else { vec![segment] },
        }
    }

    /// The segments in file order, without gap or overlap.
    #[must_use]
    pub fn segments(&self) -> &[LayoutSegment] {
        &self.segments
    }

    /// Whether all segments are plain.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.segments
            .iter()
            .all(|segment| segment.kind == SegmentKind::Plain)
    }
}

/// A stretch of a file that is cut on its own: no chunk crosses its ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayoutSegment {
    /// Offsets in the file.
    pub range: Range<u64>,
    /// How to cut it, and what a codec may expect in it.
    pub kind: SegmentKind,
}

impl LayoutSegment {
    /// What a tensor is known by in other files and generations: a hash of its name, the type of
    /// its elements and its length. Piece `n` of one tensor belongs to piece `n` of another of the
    /// same identity. `None` for what is no tensor: its place in the file has to do.
    #[must_use]
    pub fn identity(&self) -> Option<[u8; 32]> {
        let SegmentKind::Tensor {
            dtype,
            big_endian,
            name_hash,
        } = &self.kind
        else {
            return None;
        };
        let [tag, kind] = dtype.tag();
        let mut hasher = blake3::Hasher::new_derive_key(IDENTITY_CONTEXT);
        hasher.update(name_hash);
        hasher.update(&[tag, kind, u8::from(*big_endian)]);
        hasher.update(&(self.range.end - self.range.start).to_le_bytes());
        Some(*hasher.finalize().as_bytes())
    }

    /// After how many bytes, counted from its start, it is cut; `None` where its content decides.
    #[must_use]
    pub fn piece(&self) -> Option<u64> {
        match self.kind {
            SegmentKind::Tensor { .. } => Some(TENSOR_PIECE),
            SegmentKind::Pages { page } => {
                Some((PAGES * u64::from(page)).clamp(MIN_PAGES_PIECE, MAX_PAGES_PIECE))
            }
            SegmentKind::Plain | SegmentKind::Blocks { .. } => None,
        }
    }

    /// End offsets of its pieces; none where its content decides on the cuts, and none of an empty
    /// range.
    pub fn pieces(&self) -> impl Iterator<Item = u64> + use<> {
        let Range { start, end } = self.range;
        let piece = self.piece().unwrap_or(1).max(1);
        let count = end.saturating_sub(start).div_ceil(piece);
        let count = if self.piece().is_some() { count } else { 0 };
        (1..=count).map(move |number| end.min(start.saturating_add(number * piece)))
    }

    /// Whether it is a tensor with a name. An array alone in its file has none: what it has in
    /// common with others says nothing.
    #[must_use]
    pub fn is_named_tensor(&self) -> bool {
        let nameless = || blake3::derive_key(tensors::NAME_CONTEXT, b"");
        matches!(self.kind, SegmentKind::Tensor { name_hash, .. } if name_hash != nameless())
    }
}

/// What a segment holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentKind {
    /// Bytes: content-defined cuts.
    Plain,
    /// A tensor, or neighbouring tiny tensors of one type: cut into pieces.
    Tensor {
        /// Type of the elements; the first begins at the start of the segment.
        dtype: Dtype,
        /// Whether each element's bytes come highest first.
        big_endian: bool,
        /// BLAKE3 (`derive_key`, "strongroom v1 tensor name") of the name: the same tensor of
        /// another file or generation. For a group, that of all its names in order.
        name_hash: [u8; 32],
    },
    /// Pages of a database, which stay where they are: cut into pieces, so that a page that changes
    /// moves no cut.
    Pages {
        /// Bytes of a page: a power of two, 512 to 65,536.
        page: u32,
    },
    /// Blocks that change as wholes: cuts only between them, by
    /// [`BlockSelector`](crate::BlockSelector).
    Blocks {
        /// Bytes of a block, counted from the start of the file: a power of two, 4 KiB to 64 KiB.
        grid: u32,
    },
}

/// Recognises the input as the start of files of several lengths and checks what must always hold.
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub fn fuzz_layout(data: &[u8]) {
    let len = data.len() as u64;
    for file_len in [len, len / 2, len.saturating_mul(3), u64::MAX] {
        let Ok(found) = describe(file_len, &mut crate::fuzz::reader(data));
        let mut at = 0;
        for segment in found.layout.segments() {
            assert!(
                segment.range.start == at && segment.range.end > at,
                "{segment:?} at {at}"
            );
            at = segment.range.end;
        }
        assert_eq!(at, file_len, "the segments do not cover the file");
        let mut at = 0;
        for tensor in &found.tensors {
            assert!(
                at <= tensor.range.start && tensor.range.start < tensor.range.end,
                "{tensor:?} at {at}"
            );
            at = tensor.range.end;
        }
        assert!(at <= file_len, "a tensor reaches over the end");
    }
}

/// The layout of a file of which these bytes are the start.
#[cfg(test)]
fn at_hand(data: &[u8], file_len: u64) -> Layout {
    let Ok(found) = describe(file_len, &mut crate::fuzz::reader(data));
    found.layout
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_counted_from_the_start_of_the_segment() {
        let tensor = SegmentKind::Tensor {
            dtype: Dtype::F32,
            big_endian: false,
            name_hash: [0; 32],
        };
        let pieces = |kind, range| LayoutSegment { range, kind }.pieces().collect::<Vec<_>>();
        let of_tensor = |range| pieces(tensor, range);
        assert_eq!(of_tensor(5..5), [0; 0]);
        assert_eq!(of_tensor(5..6), [6]);
        assert_eq!(of_tensor(5..5 + TENSOR_PIECE), [5 + TENSOR_PIECE]);
        assert_eq!(
            of_tensor(5..6 + 2 * TENSOR_PIECE),
            [5 + TENSOR_PIECE, 5 + 2 * TENSOR_PIECE, 6 + 2 * TENSOR_PIECE]
        );
        assert_eq!(of_tensor(u64::MAX - 3..u64::MAX), [u64::MAX]);
        #[expect(clippy::reversed_empty_ranges, reason = "hostile input")]
        let backwards = of_tensor(9..5);
        assert_eq!(backwards, [0; 0]);
        for (page, piece) in [(512, 64), (2048, 128), (4096, 256), (65_536, 256)] {
            let ends = pieces(SegmentKind::Pages { page }, 0..1 << 20);
            assert_eq!(ends.first(), Some(&(piece << 10)), "{page}");
            assert!(piece << 10 >= u64::from(page));
            assert!(MAX_PAGES_PIECE.is_multiple_of(piece << 10));
        }
        assert_eq!(pieces(SegmentKind::Plain, 0..9), [0; 0]);
        assert_eq!(pieces(SegmentKind::Blocks { grid: 4096 }, 0..9), [0; 0]);
    }

    #[test]
    fn a_piece_holds_whole_elements_of_every_type() {
        assert!(TENSOR_PIECE.is_multiple_of(16));
    }

    #[test]
    fn a_plain_file_is_one_segment_and_an_empty_file_none() {
        assert_eq!(Layout::plain(0).segments(), []);
        let whole = LayoutSegment {
            range: 0..9,
            kind: SegmentKind::Plain,
        };
        assert_eq!(Layout::plain(9).segments(), [whole]);
        assert!(Layout::plain(9).is_plain());
        assert!(!Layout::disk(9).is_plain());
    }

    #[test]
    fn identity_tells_names_types_and_lengths_apart_and_nothing_else() {
        let segment = |start, len, dtype, name: u8| LayoutSegment {
            range: start..start + len,
            kind: SegmentKind::Tensor {
                dtype,
                big_endian: false,
                name_hash: [name; 32],
            },
        };
        let one = segment(0, 8, Dtype::F32, 1).identity();
        assert_eq!(segment(100, 8, Dtype::F32, 1).identity(), one);
        for other in [
            segment(0, 12, Dtype::F32, 1),
            segment(0, 8, Dtype::I32, 1),
            segment(0, 8, Dtype::Quantised(2), 1),
            segment(0, 8, Dtype::F32, 2),
        ] {
            assert_ne!(other.identity(), one, "{other:?}");
        }
        let disk = Layout::disk(9);
        assert_eq!(disk.segments()[0].identity(), None);
        assert!(segment(0, 8, Dtype::F32, 1).is_named_tensor());
        assert!(!disk.segments()[0].is_named_tensor());
        let mut alone = segment(0, 8, Dtype::F32, 1);
        if let SegmentKind::Tensor { name_hash, .. } = &mut alone.kind {
            *name_hash = blake3::derive_key(tensors::NAME_CONTEXT, b"");
        }
        assert!(!alone.is_named_tensor());
    }

    #[test]
    fn an_error_of_the_reader_is_told_and_nothing_else_fails() {
        let mut broken = |_: u64, _: &mut [u8]| Err("no");
        assert_eq!(recognise(1 << 20, &mut broken), Err("no"));
        assert_eq!(
            recognise(LEAST_FILE - 1, &mut broken),
            Ok(Layout::plain(LEAST_FILE - 1))
        );
        let mut short = |_: u64, _: &mut [u8]| Ok::<_, &str>(3);
        assert_eq!(recognise(1 << 20, &mut short), Ok(Layout::plain(1 << 20)));
    }
}
