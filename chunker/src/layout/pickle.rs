//! What a checkpoint's pickle says of the storages beside it: their types, lengths and names.
//!
//! Lives here: a walk over the instructions of a pickle that keeps track of texts, numbers and
//! references to storages, and of nothing else. Does not live here: the storages. The instructions:
//! CPython's `Lib/pickletools.py`.
//!
//! Must stay true: nothing is imported, called or built; memory is a small multiple of the pickle's
//! length; work is bounded by [`MAX_WORK`]; an instruction that is not known ends the walk without
//! a result.

use std::{
    collections::{HashMap, HashSet},
    ops::Range,
};

use super::{Dtype, tensors::elements};

/// Most keys in a storage's path.
const MAX_DEPTH: usize = 16;
/// Most times that a reference to a storage is moved from one container into another.
const MAX_WORK: usize = 8 << 20;
/// Longest name of a storage, and of all together.
const MAX_NAME: usize = 4 << 10;
const MAX_NAMES: usize = 16 << 20;
const MAX_SIDES: usize = 16;

/// What a pickle says of a storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Storage {
    pub(super) dtype: Dtype,
    /// Elements.
    pub(super) count: u64,
    /// The keys that lead to it, joined by dots.
    pub(super) name: Option<String>,
    /// The shape of the tensor that is all of it.
    pub(super) shape: Option<Vec<u64>>,
}

/// The storages of a pickle by their keys, if it can be followed to its end.
pub(super) fn storages(pickle: &[u8]) -> Option<HashMap<String, Storage>> {
    let mut machine = Machine {
        pickle,
        ..Machine::default()
    };
    while machine.step()? {}
    Some(machine.result())
}

#[derive(Clone, Copy)]
enum What {
    Mark,
    /// A place in the pickle.
    Text(Place),
    Number(u64),
    /// A place in `numbers`.
    Numbers(Place),
    /// The name of a class of storages.
    Class(Dtype),
    /// What names a storage: its class, its key, its count of elements.
    Reference(Dtype, Place, u64),
    Other,
}

#[derive(Clone, Copy)]
struct Place {
    start: usize,
    len: usize,
}

impl Place {
    const fn range(self) -> Range<usize> {
        self.start..self.start.saturating_add(self.len)
    }
}

struct Value {
    what: What,
    /// The storages in it, by number.
    holds: Vec<usize>,
}

impl From<What> for Value {
    fn from(what: What) -> Self {
        Self {
            what,
            holds: Vec::new(),
        }
    }
}

struct Known {
    dtype: Dtype,
    key: Place,
    count: u64,
    shape: Option<Place>,
    /// From the innermost key to the outermost.
    path: Vec<What>,
}

#[derive(Default)]
struct Machine<'p> {
    pickle: &'p [u8],
    at: usize,
    stack: Vec<Value>,
    memo: HashMap<u32, What>,
    numbers: Vec<u64>,
    known: Vec<Known>,
    seen: HashSet<&'p [u8]>,
    work: usize,
}

impl<'p> Machine<'p> {
    /// Follows one instruction; false at the end.
    fn step(&mut self) -> Option<bool> {
        let [instruction] = self.array()?;
        match instruction {
            b'.' => return Some(false),
            0x80 => drop(self.take(1)?),
            0x95 => drop(self.take(8)?),
            b'(' => self.push(What::Mark),
            b')' => self.tuple(Vec::new())?,
            b'N' | 0x88 | 0x89 | b']' | b'}' | 0x8f => self.push(What::Other),
            b'0' => drop(self.stack.pop()?),
            b'1' => drop(self.above_mark()?),
            b'2' => {
                let what = self.stack.last()?.what;
                self.push(what);
            }
            b'J' | b'K' | b'M' | 0x8a | 0x8b | b'G' => self.number(instruction)?,
            b'X' | b'U' | b'T' | b'C' | b'B' | 0x8c | 0x8d | 0x8e | 0x96 => {
                self.text(instruction)?;
            }
            b'c' | 0x93 => self.class(instruction)?,
            b'q' | b'r' | 0x94 | b'h' | b'j' => self.remember(instruction)?,
            b't' | 0x85 | 0x86 | 0x87 => {
                let items = match instruction {
                    b't' => self.above_mark()?,
                    0x85 => self.last(1)?,
                    0x86 => self.last(2)?,
                    _ => self.last(3)?,
                };
                self.tuple(items)?;
            }
            b'l' | b'd' | 0x91 => {
                let items = self.above_mark()?;
                self.push(What::Other);
                self.put_in(items, instruction == b'd')?;
            }
            b'a' | b's' | b'b' | b'e' | b'u' | 0x90 => {
                let items = match instruction {
                    b'a' | b'b' => self.last(1)?,
                    b's' => self.last(2)?,
                    _ => self.above_mark()?,
                };
                self.put_in(items, matches!(instruction, b's' | b'u'))?;
            }
            b'R' | 0x81 | 0x92 => {
                let count = if instruction == 0x92 { 3 } else { 2 };
                let items = self.last(count)?;
                self.push(What::Other);
                self.put_in(items, false)?;
            }
            b'Q' => self.reference()?,
            _ => return None,
        }
        Some(true)
    }

    fn push(&mut self, what: What) {
        self.stack.push(what.into());
    }

    fn take(&mut self, len: usize) -> Option<Place> {
        let place = Place {
            start: self.at,
            len,
        };
        self.pickle.get(place.range())?;
        self.at += len;
        Some(place)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let place = self.take(N)?;
        self.bytes(place)?.first_chunk().copied()
    }

    fn bytes(&self, place: Place) -> Option<&'p [u8]> {
        self.pickle.get(place.range())
    }

    fn length(&mut self, width: usize) -> Option<usize> {
        let place = self.take(width)?;
        let mut bytes = self.bytes(place)?.iter().rev();
        bytes.try_fold(0usize, |len, byte| {
            len.checked_mul(256)?.checked_add(usize::from(*byte))
        })
    }

    fn number(&mut self, instruction: u8) -> Option<()> {
        let len = match instruction {
            b'K' => 1,
            b'M' => 2,
            b'J' => 4,
            b'G' => 8,
            0x8a => self.length(1)?,
            _ => self.length(4)?,
        };
        let place = self.take(len)?;
        let bytes = self.bytes(place)?;
        let is_signed = !matches!(instruction, b'K' | b'M');
        let is_negative = is_signed && bytes.last().is_some_and(|byte| *byte >= 0x80);
        // Negative, huge and broken numbers are none that a shape or a count could have.
        let what = if is_negative || len > 8 || instruction == b'G' {
            What::Other
        } else {
            let mut number = 0u64;
            for byte in bytes.iter().rev() {
                number = number << 8 | u64::from(*byte);
            }
            What::Number(number)
        };
        self.push(what);
        Some(())
    }

    fn text(&mut self, instruction: u8) -> Option<()> {
        let width = match instruction {
            b'U' | b'C' | 0x8c => 1,
            b'X' | b'T' | b'B' => 4,
            _ => 8,
        };
        let len = self.length(width)?;
        let place = self.take(len)?;
        let is_text = matches!(instruction, b'X' | 0x8c | 0x8d);
        self.push(if is_text {
            What::Text(place)
        } else {
            What::Other
        });
        Some(())
    }

    fn line(&mut self) -> Option<Place> {
        let rest = self.pickle.get(self.at..)?;
        let len = rest.iter().position(|byte| *byte == b'\n')?;
        let place = self.take(len)?;
        self.take(1)?;
        Some(place)
    }

    fn class(&mut self, instruction: u8) -> Option<()> {
        let (module, name) = if instruction == b'c' {
            (Some(self.line()?), Some(self.line()?))
        } else {
            let items = self.last(2)?;
            let mut places = items.iter().map(|item| match item.what {
                What::Text(place) => Some(place),
                _ => None,
            });
            (places.next()?, places.next()?)
        };
        let is_torch = module.and_then(|place| self.bytes(place));
        let is_torch = is_torch.is_some_and(|name| name == b"torch" || name == b"torch.storage");
        let name = name.and_then(|place| self.bytes(place)).unwrap_or_default();
        let dtype = if is_torch { storage_dtype(name) } else { None };
        self.push(dtype.map_or(What::Other, What::Class));
        Some(())
    }

    fn remember(&mut self, instruction: u8) -> Option<()> {
        let slot = match instruction {
            0x94 => u32::try_from(self.memo.len()).ok()?,
            b'q' | b'h' => u32::from_le_bytes([self.array::<1>()?[0], 0, 0, 0]),
            _ => u32::from_le_bytes(self.array()?),
        };
        if matches!(instruction, b'h' | b'j') {
            let what = *self.memo.get(&slot)?;
            self.push(what);
        } else {
            // Who looks it up gets what it is, but not the storages in it: each has one place.
            let what = self.stack.last()?.what;
            self.memo.insert(slot, what);
        }
        Some(())
    }

    fn above_mark(&mut self) -> Option<Vec<Value>> {
        let is_mark = |value: &Value| matches!(value.what, What::Mark);
        let mark = self.stack.iter().rposition(is_mark)?;
        let items = self.stack.split_off(mark + 1);
        self.stack.pop();
        Some(items)
    }

    fn last(&mut self, count: usize) -> Option<Vec<Value>> {
        let from = self.stack.len().checked_sub(count)?;
        Some(self.stack.split_off(from))
    }

    /// Joins values that become one, and notes what a tuple of known things means.
    fn tuple(&mut self, items: Vec<Value>) -> Option<()> {
        let whats: Vec<What> = items.iter().take(5).map(|item| item.what).collect();
        let holder = items.first().map(|item| item.holds.as_slice());
        if let (Some([storage]), [_, What::Number(0), What::Numbers(shape), ..]) =
            (holder, whats.as_slice())
            && shape.len <= MAX_SIDES
            && let Some(known) = self.known.get_mut(*storage)
            && self.numbers.get(shape.range()).and_then(elements) == Some(known.count)
        {
            known.shape = Some(*shape);
        }
        let what = match whats.as_slice() {
            [
                What::Text(kind),
                What::Class(dtype),
                What::Text(key),
                _,
                What::Number(count),
            ] if items.len() == 5 && self.bytes(*kind)? == b"storage" => {
                What::Reference(*dtype, *key, *count)
            }
            _ => self.sides(&items),
        };
        self.push(what);
        self.put_in(items, false)
    }

    fn sides(&mut self, items: &[Value]) -> What {
        let start = self.numbers.len();
        for item in items {
            match item.what {
                What::Number(number) => self.numbers.push(number),
                _ => {
                    self.numbers.truncate(start);
                    return What::Other;
                }
            }
        }
        What::Numbers(Place {
            start,
            len: items.len(),
        })
    }

    /// Puts items into what is on top of the stack: alternately keys and values, or values only.
    fn put_in(&mut self, items: Vec<Value>, has_keys: bool) -> Option<()> {
        let mut key = None;
        for item in items {
            if has_keys && key.is_none() {
                key = Some(item.what);
                continue;
            }
            self.work += item.holds.len();
            if self.work > MAX_WORK {
                return None;
            }
            if let Some(key @ (What::Text(_) | What::Number(_))) = key.take() {
                for storage in &item.holds {
                    let path = &mut self.known.get_mut(*storage)?.path;
                    if path.len() < MAX_DEPTH {
                        path.push(key);
                    }
                }
            }
            let into = &mut self.stack.last_mut()?.holds;
            if into.is_empty() {
                *into = item.holds;
            } else {
                into.extend(item.holds);
            }
        }
        Some(())
    }

    fn reference(&mut self) -> Option<()> {
        let named = self.stack.pop()?;
        let mut value = Value::from(What::Other);
        if let What::Reference(dtype, key, count) = named.what {
            let number = self.known.len();
            // The first mention of a storage is its place; others are views of it.
            if self.seen.insert(self.bytes(key)?) {
                value.holds.push(number);
                self.known.push(Known {
                    dtype,
                    key,
                    count,
                    shape: None,
                    path: Vec::new(),
                });
            }
        }
        self.stack.push(value);
        Some(())
    }

    fn string(&self, place: Place) -> Option<&'p str> {
        std::str::from_utf8(self.bytes(place)?).ok()
    }

    /// The keys that lead to a storage; `None` if there are none, or too many letters of them.
    fn name_of(&self, known: &Known) -> Option<String> {
        let mut name = String::new();
        for part in known.path.iter().rev() {
            if !name.is_empty() {
                name.push('.');
            }
            match part {
                What::Number(number) => name += &number.to_string(),
                What::Text(place) if place.len <= MAX_NAME => name += self.string(*place)?,
                _ => return None,
            }
            if name.len() > MAX_NAME {
                return None;
            }
        }
        (!name.is_empty()).then_some(name)
    }

    fn result(self) -> HashMap<String, Storage> {
        let mut storages = HashMap::new();
        let mut names_len = 0;
        for known in &self.known {
            let Some(key) = self.string(known.key) else {
                continue;
            };
            let name = self
                .name_of(known)
                .filter(|name| names_len + name.len() <= MAX_NAMES);
            names_len += name.as_ref().map_or(0, String::len);
            let shape = known
                .shape
                .and_then(|place| self.numbers.get(place.range()));
            let storage = Storage {
                dtype: known.dtype,
                count: known.count,
                name,
                shape: shape.map(<[u64]>::to_vec),
            };
            storages.insert(key.to_owned(), storage);
        }
        storages
    }
}

fn storage_dtype(class: &[u8]) -> Option<Dtype> {
    Some(match class {
        b"DoubleStorage" => Dtype::F64,
        b"FloatStorage" => Dtype::F32,
        b"HalfStorage" => Dtype::F16,
        b"BFloat16Storage" => Dtype::Bf16,
        b"LongStorage" => Dtype::I64,
        b"IntStorage" => Dtype::I32,
        b"ShortStorage" => Dtype::I16,
        b"CharStorage" => Dtype::I8,
        b"ByteStorage" => Dtype::U8,
        b"BoolStorage" => Dtype::Bool,
        b"ComplexFloatStorage" => Dtype::C64,
        b"ComplexDoubleStorage" => Dtype::C128,
        // Its bytes are counted, their type stands elsewhere.
        b"UntypedStorage" => Dtype::Unknown,
        _ => return None,
    })
}

/// Follows the input as a pickle.
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub fn fuzz_pickle(data: &[u8]) {
    let known = storages(data).unwrap_or_default();
    let names: usize = known
        .values()
        .filter_map(|storage| storage.name.as_ref())
        .map(String::len)
        .sum();
    assert!(names <= MAX_NAMES, "{names} letters of names");
    assert!(known.len() <= data.len(), "storages out of nothing");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `(` ... `t` `Q`: what stands for a storage.
    fn reference(class: &str, key: &str, count: u8) -> Vec<u8> {
        let text = |text: &str| {
            let len = u32::try_from(text.len()).unwrap();
            [b"X", &len.to_le_bytes()[..], text.as_bytes()].concat()
        };
        let class = format!("ctorch\n{class}\n");
        let head = [
            b"(".to_vec(),
            text("storage"),
            class.into_bytes(),
            text(key),
        ];
        [head.concat(), text("cpu"), vec![b'K', count, b't', b'Q']].concat()
    }

    fn storage(pickle: &[u8], key: &str) -> Option<Storage> {
        storages(pickle)?.remove(key)
    }

    #[test]
    fn a_storage_has_the_keys_that_lead_to_it() {
        let parts = [
            b"\x80\x02}(X\x01\0\0\0aK\x07X\x01\0\0\0b}(".to_vec(),
            vec![b'K', 5],
            reference("HalfStorage", "9", 4),
            b"uu.".to_vec(),
        ];
        let found = storage(&parts.concat(), "9").unwrap();
        assert_eq!((found.dtype, found.count), (Dtype::F16, 4));
        assert_eq!(found.name.as_deref(), Some("b.5"));
        assert_eq!(found.shape, None);
    }

    #[test]
    fn a_shape_is_believed_where_it_is_all_of_the_storage() {
        for (count, shape) in [(6, Some(vec![2, 3])), (7, None)] {
            let parts = [
                b"\x80\x02(".to_vec(),
                reference("FloatStorage", "0", count),
                b"K\0K\x02K\x03\x86K\x03K\x01\x86t.".to_vec(),
            ];
            assert_eq!(storage(&parts.concat(), "0").unwrap().shape, shape);
        }
    }

    #[test]
    fn what_is_not_known_is_not_followed() {
        for pickle in [
            &b""[..],
            b"\x80\x02",
            b"\x80\x02i",
            b"\x80\x02t.",
            b"\x80\x02h\x05.",
            b"\x80\x02X\xff\xff\xff\xff.",
            b"\x80\x02\x8d\xff\xff\xff\xff\xff\xff\xff\xff.",
            b"\x80\x02\x8a\x09123456789\x86.",
            b"cos\nsystem",
        ] {
            assert_eq!(storages(pickle), None, "{pickle:?}");
        }
        let foreign = reference("FloatStorage", "0", 1);
        let foreign = String::from_utf8(foreign)
            .unwrap()
            .replace("ctorch", "cposix");
        assert_eq!(
            storages(format!("{foreign}.").as_bytes()),
            Some(HashMap::new())
        );
    }

    #[test]
    fn work_is_bounded_however_deep_containers_lie() {
        let mut pickle = b"\x80\x02]".to_vec();
        for key in 0..3000 {
            pickle.extend(reference("FloatStorage", &key.to_string(), 1));
            pickle.push(b'a');
        }
        pickle.extend(b"\x85".repeat(100_000));
        pickle.push(b'.');
        assert_eq!(storages(&pickle), None);
    }

    #[test]
    fn names_are_bounded_together() {
        let mut pickle = b"\x80\x02".to_vec();
        let long = "n".repeat(4000);
        pickle.extend(b"X\xa0\x0f\0\0");
        pickle.extend(long.as_bytes());
        pickle.extend(b"q\0}(");
        for key in 0..9000 {
            pickle.extend(b"h\0");
            pickle.extend(reference("FloatStorage", &key.to_string(), 1));
        }
        pickle.extend(b"u.");
        fuzz_pickle(&pickle);
        let named = storages(&pickle).unwrap();
        let named = named.values().filter(|storage| storage.name.is_some());
        assert_eq!(named.count(), MAX_NAMES / 4000);
    }

    const CODES: &[u8] = b"(N012KXtQuse]}qhR\x85\x86b.";

    proptest! {
        #[test]
        fn any_bytes_pass_the_fuzz_body(data in prop::collection::vec(any::<u8>(), 0..300)) {
            fuzz_pickle(&data);
        }

        #[test]
        fn any_instructions_pass_the_fuzz_body(
            codes in prop::collection::vec(prop::sample::select(CODES), 0..60),
        ) {
            fuzz_pickle(&codes);
        }
    }
}
