//! Standard zstd frames: the contexts that write them, and what a frame must look like to be read.
//!
//! Frames are those of RFC 8878, one per encoding, with the content size in the header and neither
//! a checksum (the seal covers the bytes) nor a dictionary. Which data deserves a frame at all is
//! decided in the parent module and in `planes`.
//!
//! Must stay true: nothing is decompressed before the frame's header was found to promise exactly
//! the expected length and its end to be the end of the input.

use ::zstd::zstd_safe::{
    self, CCtx, CParameter, DCtx, ParamSwitch, compress_bound, find_frame_compressed_size,
};

use super::CodecError;

/// Largest window a frame may ask for: every blob is shorter than this.
const MAX_WINDOW: u64 = 1 << 24;

/// The first four bytes of a frame, in file order (RFC 8878, 3.1.1).
const MAGIC: [u8; 4] = [0x28, 0xB5, 0x2F, 0xFD];

/// Negative enough that the match finder walks through the input in giant steps and finds nothing;
/// with compressed literals forced, what remains is an order-0 Huffman coder with a table per
/// 128 KiB. Real matches in exponents are chance hits that cost more than they save.
const LITERALS_ONLY_LEVEL: i32 = -1000;

/// Largest tables of a frame with a base: 16 MiB each, for blobs of the greatest length.
const MAX_TABLE_LOG: u32 = 22;

/// Least bytes that a window has to span.
const MIN_SPAN: usize = 1 << 10;

/// A compression context with its parameters set.
pub(super) struct Compressor {
    context: CCtx<'static>,
}

impl Compressor {
    /// A context for ordinary data at a zstd `level`.
    pub(super) fn at_level(level: i32) -> Result<Self, CodecError> {
        Self::with(&[CParameter::CompressionLevel(level)])
    }

    /// A context that codes bytes by their frequencies alone.
    pub(super) fn literals_only() -> Result<Self, CodecError> {
        Self::with(&[
            CParameter::CompressionLevel(LITERALS_ONLY_LEVEL),
            CParameter::LiteralCompressionMode(ParamSwitch::Enable),
        ])
    }

    fn with(parameters: &[CParameter]) -> Result<Self, CodecError> {
        let mut context = CCtx::try_create().ok_or(CodecError::Compress {
            reason: "no memory for a context",
        })?;
        let fixed = [
            CParameter::ContentSizeFlag(true),
            CParameter::ChecksumFlag(false),
            CParameter::DictIdFlag(false),
        ];
        for parameter in parameters.iter().chain(&fixed) {
            context.set_parameter(*parameter).map_err(compress_error)?;
        }
        Ok(Self { context })
    }

    /// Replaces the content of `out` by one frame holding `plain`, and leaves `spare` bytes of room
    /// behind it.
    pub(super) fn compress(
        &mut self,
        plain: &[u8],
        spare: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), CodecError> {
        out.clear();
        out.reserve(compress_bound(plain.len()).saturating_add(spare));
        self.context.compress2(out, plain).map_err(compress_error)?;
        Ok(())
    }
}

/// Replaces the content of `out` by one frame holding `plain`, in which matches may begin in
/// `base`, and leaves `spare` bytes of room behind it. The window spans both, so that the whole of
/// the base is in reach from everywhere.
pub(super) fn compress_from(
    level: i32,
    base: &[u8],
    plain: &[u8],
    spare: usize,
    out: &mut Vec<u8>,
) -> Result<(), CodecError> {
    out.clear();
    out.reserve(compress_bound(plain.len()).saturating_add(spare));
    let span = base.len().saturating_add(plain.len()).max(MIN_SPAN);
    let window_log = span.next_power_of_two().trailing_zeros();
    // A context of its own: one that has seen a base is bound to it as long as it lives.
    // Tables that remember all of the base, or most of it would be forgotten before it is asked.
    let table_log = window_log.saturating_sub(2).clamp(10, MAX_TABLE_LOG);
    let parameters = [
        CParameter::CompressionLevel(level),
        CParameter::WindowLog(window_log),
        CParameter::HashLog(table_log),
        CParameter::ChainLog(table_log),
    ];
    let mut context = Compressor::with(&parameters)?.context;
    context.ref_prefix(base).map_err(compress_error)?;
    context.compress2(out, plain).map_err(compress_error)?;
    Ok(())
}

/// A decompression context.
pub(super) struct Decompressor {
    context: DCtx<'static>,
}

impl Decompressor {
    pub(super) fn new() -> Result<Self, CodecError> {
        let context = DCtx::try_create().ok_or(CodecError::Decompress {
            reason: "no memory for a context",
        })?;
        Ok(Self { context })
    }

    /// Replaces the content of `out` by the `plain_len` bytes that `frame` holds; `frame` must be
    /// one whole frame and nothing else. `plain_len` bounds what is allocated, so it must be
    /// bounded by the caller.
    pub(super) fn decompress(
        &mut self,
        frame: &[u8],
        plain_len: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), CodecError> {
        check_frame(frame, plain_len, out)?;
        let written = self.context.decompress(out, frame);
        check_written(written, plain_len, out)
    }
}

/// The same for a frame whose matches may begin in `base`.
pub(super) fn decompress_from(
    base: &[u8],
    frame: &[u8],
    plain_len: usize,
    out: &mut Vec<u8>,
) -> Result<(), CodecError> {
    check_frame(frame, plain_len, out)?;
    let mut context = Decompressor::new()?.context;
    context.ref_prefix(base).map_err(decompress_error)?;
    let written = context.decompress(out, frame);
    check_written(written, plain_len, out)
}

/// Empties `out` and makes room in it, where `frame` is one whole frame of `plain_len` bytes.
fn check_frame(frame: &[u8], plain_len: usize, out: &mut Vec<u8>) -> Result<(), CodecError> {
    out.clear();
    check_header(frame, plain_len)?;
    let frame_len = find_frame_compressed_size(frame).map_err(decompress_error)?;
    if frame_len != frame.len() {
        return Err(CodecError::TrailingBytes {
            extra: frame.len().saturating_sub(frame_len),
        });
    }
    out.reserve(plain_len);
    Ok(())
}

fn check_written(
    written: Result<usize, zstd_safe::ErrorCode>,
    plain_len: usize,
    out: &mut Vec<u8>,
) -> Result<(), CodecError> {
    let written = written
        .map_err(decompress_error)
        .inspect_err(|_| out.clear())?;
    if written != plain_len {
        out.clear();
        return Err(wrong_length(plain_len, written));
    }
    Ok(())
}

/// Accepts a frame header that has a content size of `plain_len`, a window within bounds, and none
/// of the features we never write (RFC 8878, 3.1.1.1).
fn check_header(frame: &[u8], plain_len: usize) -> Result<(), CodecError> {
    let Some((&MAGIC, rest)) = frame.split_first_chunk() else {
        return Err(CodecError::NotAFrame);
    };
    let truncated = || CodecError::Truncated { missing: 1 };
    let (&descriptor, rest) = rest.split_first().ok_or_else(truncated)?;
    let is_single_segment = descriptor & 0b0010_0000 != 0;
    if descriptor & 0b0001_1111 != 0 {
        return Err(CodecError::FrameFeature { descriptor });
    }
    let rest = if is_single_segment {
        rest
    } else {
        let (&window, rest) = rest.split_first().ok_or_else(truncated)?;
        if window_size(window) > MAX_WINDOW {
            return Err(CodecError::FrameWindow { descriptor: window });
        }
        rest
    };
    let field_len = match (descriptor >> 6, is_single_segment) {
        (0, false) => return Err(CodecError::FrameFeature { descriptor }),
        (0, true) => 1,
        (1, _) => 2,
        (2, _) => 4,
        _ => 8,
    };
    let field = rest.get(..field_len).ok_or_else(truncated)?;
    let stored = field
        .iter()
        .rev()
        .fold(0_u64, |sum, byte| (sum << 8) | u64::from(*byte));
    // The two-byte form counts from 256.
    let content = if field_len == 2 { stored + 256 } else { stored };
    if u64::try_from(plain_len) != Ok(content) {
        return Err(CodecError::WrongLength {
            expected: plain_len,
            found: content,
        });
    }
    Ok(())
}

/// RFC 8878, 3.1.1.1.2.
fn window_size(descriptor: u8) -> u64 {
    let base = 1_u64 << (10 + (descriptor >> 3));
    base + base / 8 * u64::from(descriptor & 7)
}

fn wrong_length(expected: usize, found: usize) -> CodecError {
    CodecError::WrongLength {
        expected,
        found: u64::try_from(found).unwrap_or(u64::MAX),
    }
}

fn compress_error(code: zstd_safe::ErrorCode) -> CodecError {
    CodecError::Compress {
        reason: zstd_safe::get_error_name(code),
    }
}

fn decompress_error(code: zstd_safe::ErrorCode) -> CodecError {
    CodecError::Decompress {
        reason: zstd_safe::get_error_name(code),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three literal bytes in a raw block, content size in one byte, one segment.
    const ABC: [u8; 12] = [
        0x28,
        0xB5,
        0x2F,
        0xFD,
        0x20,
        3,
        0b0001_1001,
        0,
        0,
        b'a',
        b'b',
        b'c',
    ];

    fn decompress(frame: &[u8], plain_len: usize) -> Result<Vec<u8>, CodecError> {
        let mut out = vec![0xEE; 9];
        let result = Decompressor::new()
            .unwrap()
            .decompress(frame, plain_len, &mut out);
        assert!(result.is_ok() || out.is_empty());
        result.map(|()| out)
    }

    #[test]
    fn frames_written_by_hand_are_read() {
        assert_eq!(decompress(&ABC, 3), Ok(b"abc".to_vec()));
        // The same byte 300 times, content size in two bytes, which count from 256.
        let run = [0x28, 0xB5, 0x2F, 0xFD, 0x60, 44, 0, 0x63, 0x09, 0, 0x7F];
        assert_eq!(decompress(&run, 300), Ok(vec![0x7F; 300]));
    }

    #[test]
    fn frames_of_both_contexts_have_a_size_and_nothing_else_in_their_header() {
        for plain_len in [0, 1, 200, 300, 70_000, 3 << 20] {
            let plain: Vec<u8> = (0..=u8::MAX).cycle().take(plain_len).collect();
            for level in [1, 3, 9, 19] {
                let mut frame = Vec::new();
                let mut compressor = Compressor::at_level(level).unwrap();
                compressor.compress(&plain, 16, &mut frame).unwrap();
                assert!(frame.capacity() >= frame.len() + 16);
                assert!(decompress(&frame, plain_len) == Ok(plain.clone()));
            }
            let mut frame = Vec::new();
            Compressor::literals_only()
                .unwrap()
                .compress(&plain, 0, &mut frame)
                .unwrap();
            assert!(decompress(&frame, plain_len) == Ok(plain));
        }
    }

    #[test]
    fn a_header_with_anything_else_in_it_is_refused() {
        for bit in [0, 1, 2, 3, 4] {
            let mut frame = ABC;
            frame[4] |= 1 << bit;
            let descriptor = frame[4];
            assert_eq!(
                decompress(&frame, 3),
                Err(CodecError::FrameFeature { descriptor })
            );
        }
        // No content size: several segments and none of the flags that announce one.
        let mut frame = ABC;
        frame[4] = 0;
        assert_eq!(
            decompress(&frame, 3),
            Err(CodecError::FrameFeature { descriptor: 0 })
        );
    }

    #[test]
    fn a_window_beyond_the_longest_blob_is_refused() {
        // A window descriptor and a content size in four bytes.
        let frame = |window| {
            let head = [0x28, 0xB5, 0x2F, 0xFD, 0x80, window, 3, 0, 0, 0];
            [&head[..], &ABC[6..]].concat()
        };
        assert_eq!(decompress(&frame(14 << 3), 3), Ok(b"abc".to_vec()));
        for descriptor in [(14 << 3) + 1, 15 << 3, 0xFF] {
            let found = decompress(&frame(descriptor), 3);
            assert_eq!(found, Err(CodecError::FrameWindow { descriptor }));
        }
    }

    #[test]
    fn a_content_size_other_than_expected_is_refused_before_decompression() {
        for (expected, found) in [(2, 3), (4, 3), (0, 3)] {
            let error = CodecError::WrongLength { expected, found };
            assert_eq!(decompress(&ABC, expected), Err(error));
        }
        // All eight bytes of a content size.
        let mut frame = [0xFF; 14];
        frame[..5].copy_from_slice(&[0x28, 0xB5, 0x2F, 0xFD, 0xE0]);
        let error = CodecError::WrongLength {
            expected: 3,
            found: u64::MAX,
        };
        assert_eq!(decompress(&frame, 3), Err(error));
    }

    #[test]
    fn a_frame_that_holds_more_or_less_than_it_says_is_refused() {
        for claimed in [0, 2, 4, 255] {
            let mut frame = ABC;
            frame[5] = claimed;
            let found = decompress(&frame, usize::from(claimed));
            assert!(
                matches!(found, Err(CodecError::Decompress { .. })),
                "{found:?}"
            );
        }
    }

    #[test]
    fn a_second_frame_or_a_skippable_one_is_refused() {
        let skippable = [0x50, 0x2A, 0x4D, 0x18, 0, 0, 0, 0];
        let extra = skippable.len();
        let found = decompress(&[&ABC[..], &skippable].concat(), 3);
        assert_eq!(found, Err(CodecError::TrailingBytes { extra }));
        let found = decompress(&[&skippable[..], &ABC].concat(), 3);
        assert_eq!(found, Err(CodecError::NotAFrame));
        assert_eq!(decompress(&skippable, 0), Err(CodecError::NotAFrame));
        let found = decompress(&[ABC, ABC].concat(), 3);
        assert_eq!(found, Err(CodecError::TrailingBytes { extra: ABC.len() }));
    }

    #[test]
    fn a_context_is_usable_after_an_error() {
        let mut decompressor = Decompressor::new().unwrap();
        let mut out = Vec::new();
        let mut bad = ABC;
        bad[6] = 0b0001_1111; // a reserved block type
        decompressor.decompress(&bad, 3, &mut out).unwrap_err();
        decompressor.decompress(&ABC, 3, &mut out).unwrap();
        assert_eq!(out, b"abc");
    }

    #[test]
    fn what_zstd_refuses_to_compress_with_is_an_error_in_its_words() {
        let refused = Compressor::with(&[CParameter::WindowLog(99)]).err();
        assert!(
            matches!(refused, Some(CodecError::Compress { reason }) if !reason.is_empty()),
            "{refused:?}"
        );
    }
}
