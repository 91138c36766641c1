//! One component of a pattern: `*`, `?`, `[a-z]`, `[^a-z]` and `\` as an escape, over bytes.
//!
//! A name need not be UTF-8: `?` and classes take one character where the bytes are valid and one
//! byte where they are not. Matching goes back only to the last `*`, so that its cost is bounded by
//! the product of both lengths, whatever the pattern.

use crate::error::PatternError;

/// How letters compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// As they are.
    Sensitive,
    /// Lower-cased on both sides.
    Folded,
}

/// A compiled component.
#[derive(Clone, Debug)]
pub(super) enum Glob {
    /// No wildcard.
    Exact(Vec<u8>),
    /// `*` and a literal.
    EndsWith(Vec<u8>),
    /// A literal and `*`.
    StartsWith(Vec<u8>),
    /// Anything else.
    Tokens(Vec<Token>),
}

/// One step of a general component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// This character (or invalid byte, above the range of characters).
    Char(u32),
    /// `?`
    Any,
    /// `*`
    Star,
    /// `[...]`
    Class {
        /// `[^...]`
        negated: bool,
        /// Inclusive ranges; one with its ends swapped holds nothing.
        ranges: Vec<(u32, u32)>,
    },
}

impl Glob {
    /// Compiles one component; case folding is the caller's, on both sides.
    pub(super) fn compile(pattern: &[u8]) -> Result<Self, PatternError> {
        if !has_wildcards(pattern) {
            return Ok(Self::Exact(pattern.to_vec()));
        }
        let is_plain = |part: &[u8]| !has_wildcards(part);
        if let Some(rest) = pattern.strip_prefix(b"*").filter(|rest| is_plain(rest)) {
            return Ok(Self::EndsWith(rest.to_vec()));
        }
        if let Some(rest) = pattern.strip_suffix(b"*").filter(|rest| is_plain(rest)) {
            return Ok(Self::StartsWith(rest.to_vec()));
        }
        parse(pattern).map(Self::Tokens)
    }

    /// True if the whole of `name` matches.
    pub(super) fn matches(&self, name: &[u8]) -> bool {
        match self {
            Self::Exact(literal) => literal == name,
            Self::EndsWith(literal) => name.ends_with(literal),
            Self::StartsWith(literal) => name.starts_with(literal),
            Self::Tokens(tokens) => match_tokens(tokens, name),
        }
    }
}

/// True if the component needs more than a comparison.
pub(super) fn has_wildcards(pattern: &[u8]) -> bool {
    pattern.iter().any(|b| b"*?[]\\".contains(b))
}

/// Lower-cases the valid text in `name` character by character and leaves other bytes alone.
pub(super) fn fold(name: &[u8]) -> Vec<u8> {
    if name.is_ascii() {
        return name.to_ascii_lowercase();
    }
    let mut folded = Vec::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        for c in chunk.valid().chars().flat_map(char::to_lowercase) {
            folded.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
        folded.extend_from_slice(chunk.invalid());
    }
    folded
}

fn parse(mut rest: &[u8]) -> Result<Vec<Token>, PatternError> {
    let mut tokens = Vec::new();
    while let Some((&first, after)) = rest.split_first() {
        match first {
            b'*' => {
                if tokens.last() != Some(&Token::Star) {
                    tokens.push(Token::Star);
                }
                rest = after;
            }
            b'?' => {
                tokens.push(Token::Any);
                rest = after;
            }
            b'[' => {
                let (class, after) = parse_class(after)?;
                tokens.push(class);
                rest = after;
            }
            b'\\' => {
                let (c, after) = split_char(after).ok_or(PatternError::TrailingBackslash)?;
                tokens.push(Token::Char(c));
                rest = after;
            }
            _ => {
                let Some((c, after)) = split_char(rest) else {
                    break;
                };
                tokens.push(Token::Char(c));
                rest = after;
            }
        }
    }
    Ok(tokens)
}

/// Parses what follows a `[`; returns the class and what follows its `]`.
fn parse_class(mut rest: &[u8]) -> Result<(Token, &[u8]), PatternError> {
    let negated = rest.first() == Some(&b'^');
    if negated {
        rest = rest.get(1..).unwrap_or_default();
    }
    let mut ranges = Vec::new();
    loop {
        if let Some(after) = rest.strip_prefix(b"]") {
            if ranges.is_empty() {
                return Err(PatternError::EmptyClass);
            }
            return Ok((Token::Class { negated, ranges }, after));
        }
        let (low, after) = parse_class_char(rest)?;
        rest = after;
        let mut high = low;
        if let Some(after) = rest.strip_prefix(b"-") {
            (high, rest) = parse_class_char(after)?;
        }
        ranges.push((low, high));
    }
}

fn parse_class_char(rest: &[u8]) -> Result<(u32, &[u8]), PatternError> {
    match rest.first() {
        None => Err(PatternError::UnclosedClass),
        Some(b'-' | b']') => Err(PatternError::BadRange),
        Some(b'\\') => rest
            .get(1..)
            .and_then(split_char)
            .ok_or(PatternError::TrailingBackslash),
        Some(_) => split_char(rest).ok_or(PatternError::UnclosedClass),
    }
}

/// Takes one character, or one byte where the bytes are no UTF-8 (told apart by a value beyond all
/// characters).
fn split_char(bytes: &[u8]) -> Option<(u32, &[u8])> {
    const BEYOND_CHARACTERS: u32 = 0x11_0000;
    let (&first, after) = bytes.split_first()?;
    if first.is_ascii() {
        return Some((u32::from(first), after));
    }
    let head = bytes.get(..4).unwrap_or(bytes);
    let valid = head.utf8_chunks().next()?.valid();
    match valid.chars().next() {
        Some(c) => Some((u32::from(c), bytes.get(c.len_utf8()..)?)),
        None => Some((BEYOND_CHARACTERS + u32::from(first), after)),
    }
}

fn match_tokens(tokens: &[Token], name: &[u8]) -> bool {
    let (mut t, mut rest) = (tokens, name);
    // Where to go on after a mismatch: the tokens behind the last star, and what it has not taken.
    let mut retry: Option<(&[Token], &[u8])> = None;
    loop {
        match t.split_first() {
            Some((Token::Star, after)) => {
                retry = Some((after, rest));
                t = after;
                continue;
            }
            Some((token, after)) => {
                if let Some(remaining) = match_one(token, rest) {
                    t = after;
                    rest = remaining;
                    continue;
                }
            }
            None if rest.is_empty() => return true,
            None => {}
        }
        let Some((after_star, untaken)) = retry else {
            return false;
        };
        let Some(fewer) = untaken.get(1..) else {
            return false;
        };
        retry = Some((after_star, fewer));
        (t, rest) = (after_star, fewer);
    }
}

fn match_one<'a>(token: &Token, rest: &'a [u8]) -> Option<&'a [u8]> {
    let (c, after) = split_char(rest)?;
    let matched = match token {
        Token::Char(wanted) => *wanted == c,
        Token::Any => true,
        Token::Star => false,
        Token::Class { negated, ranges } => {
            ranges.iter().any(|&(low, high)| low <= c && c <= high) != *negated
        }
    };
    matched.then_some(after)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("abc", "abc", true)]
    #[case("abc", "abcd", false)]
    #[case("*", "", true)]
    #[case("*.o", "main.o", true)]
    #[case("*.o", ".o", true)]
    #[case("*.o", "main.oo", false)]
    #[case("core*", "core.123", true)]
    #[case("a*b*c", "aXbYbZc", true)]
    #[case("a*b*c", "aXbYbZ", false)]
    #[case("a**c", "abc", true)]
    #[case("?", "x", true)]
    #[case("?", "", false)]
    #[case("?", "xy", false)]
    #[case("?", "ü", true)]
    #[case("[a-c]x", "bx", true)]
    #[case("[a-c]x", "dx", false)]
    #[case("[^a-c]x", "dx", true)]
    #[case("[^a-c]x", "ax", false)]
    #[case("[!a]", "!", true)]
    #[case("[!a]", "b", false)]
    #[case("[ä-ö]", "ö", true)]
    #[case(r"[\]]", "]", true)]
    #[case(r"[\-x]", "-", true)]
    #[case("[c-a]", "b", false)]
    #[case(r"\*", "*", true)]
    #[case(r"\*", "x", false)]
    #[case(r"a\\b", r"a\b", true)]
    #[case("a]b", "a]b", true)]
    #[case("*[0-9]", "ab1", true)]
    #[case("*?", "é", true)]
    fn a_component_matches_as_documented(
        #[case] pattern: &str,
        #[case] name: &str,
        #[case] expected: bool,
    ) {
        let glob = Glob::compile(pattern.as_bytes()).unwrap();
        assert_eq!(
            glob.matches(name.as_bytes()),
            expected,
            "{pattern} on {name}"
        );
    }

    #[test]
    fn invalid_utf8_is_matched_byte_by_byte() {
        let one = Glob::compile(b"a?b").unwrap();
        assert!(one.matches(b"a\xffb"));
        assert!(!one.matches(b"a\xff\xffb"));
        let class = Glob::compile(b"[\xf0-\xff]").unwrap();
        assert!(class.matches(b"\xfe"));
        assert!(!class.matches("ü".as_bytes()));
        assert!(Glob::compile(b"*\xff").unwrap().matches(b"abc\xff"));
    }

    #[rstest]
    #[case("[", PatternError::UnclosedClass)]
    #[case("[a", PatternError::UnclosedClass)]
    #[case("[a-", PatternError::UnclosedClass)]
    #[case("[]", PatternError::EmptyClass)]
    #[case("[^]", PatternError::EmptyClass)]
    #[case("[-a]", PatternError::BadRange)]
    #[case("[a-]", PatternError::BadRange)]
    #[case(r"a\", PatternError::TrailingBackslash)]
    #[case(r"[\", PatternError::TrailingBackslash)]
    fn a_pattern_without_meaning_is_refused(#[case] pattern: &str, #[case] error: PatternError) {
        assert_eq!(Glob::compile(pattern.as_bytes()).unwrap_err(), error);
    }

    #[test]
    fn a_hostile_pattern_costs_no_more_than_the_product_of_the_lengths() {
        let glob = Glob::compile(&b"*a".repeat(2000)).unwrap();
        assert!(!glob.matches(&[b"a".repeat(20_000), b"b".to_vec()].concat()));
    }

    #[test]
    fn folding_lowers_text_and_keeps_other_bytes() {
        assert_eq!(fold(b"ReadMe"), b"readme");
        assert_eq!(fold("GRÖSSE".as_bytes()), "grösse".as_bytes());
        assert_eq!(fold(b"A\xffB"), b"a\xffb");
    }
}
