//! Pickles read as data: nothing is imported, nothing is called.
//!
//! Values refer to one another by index, so that cycles and values that are used a million times over
//! take no more room than they do in the file, and nothing here recurses.

use super::globals::Global;
use super::objects::{ByteSpan, Parsed, Pickle, PickleObject, PickleValue, pairs};
use crate::Result;
use crate::files::checked_file::{CheckedFile, little_endian};

/// Values that a pickle may make; a tensor takes about thirty.
pub(super) const MAX_VALUES: usize = 1_000_000;

/// A pickle whose instructions are being read.
struct Unpickler<'a> {
    pickle: Pickle<'a>,
    at: usize,
    stack: Vec<PickleValue>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: Vec<Option<PickleValue>>,
    memorized: usize,
}

const MISSING: &str = "damaged: a value is missing";
const NO_DICT: &str = "damaged: a dict is missing";
const NO_NAME: &str = "a global's name: expected text, found none";
const CUT: &str = "the pickle ends too early; is the file cut?";

/// Reads the pickle of at most `values` values that `bytes` start with: it, its value, and its length.
pub(super) fn load<'a>(
    file: &CheckedFile,
    bytes: &'a [u8],
    values: usize,
) -> Result<(Pickle<'a>, PickleValue, usize)> {
    let bytes = &bytes[..bytes.len().min(u32::MAX as usize)];
    let mut unpickler = Unpickler {
        pickle: Pickle { bytes, objects: Vec::new(), left: values },
        at: 0,
        stack: Vec::new(),
        marks: Vec::new(),
        memo: Vec::new(),
        memorized: 0,
    };
    loop {
        let at = unpickler.at;
        match unpickler.step() {
            Ok(None) => {}
            Ok(Some(value)) => return Ok((unpickler.pickle, value, unpickler.at)),
            Err(message) => {
                return Err(file.wrong(format!("{message} (byte {at} of the pickle)")));
            }
        }
    }
}

impl<'a> Unpickler<'a> {
    /// One instruction; the value where it is the last one.
    fn step(&mut self) -> Parsed<Option<PickleValue>> {
        let op = self.take(1)?[0];
        match op {
            // versions 0 and 1 do not say so
            0x80 => match self.number(1)? {
                2..=5 => {}
                version => return Err(format!("expected pickle protocol 2 to 5, found {version}")),
            },
            0x95 => drop(self.take(8)?),
            b'.' => return self.pop().map(Some),
            b'(' => {
                self.pickle.count()?;
                self.marks.push(self.stack.len());
            }
            b'0' if self.marks.last() == Some(&self.stack.len()) => drop(self.marks.pop()),
            b'0' => drop(self.pop()?),
            // an object is told something of itself, which changes no tensor
            b'b' => drop((self.pop()?, self.top()?)),
            b'1' | 0x90 => drop(self.pop_mark()?),
            b'q' | b'r' => {
                let index = self.number(width(op))?;
                self.keep(index)?;
            }
            0x94 => self.keep(self.memorized)?,
            b'a' | b's' | b'e' | b'u' => {
                let parts = match op {
                    b'a' => self.pop_many(1)?,
                    b's' => self.pop_many(2)?,
                    _ => self.pop_mark()?,
                };
                self.add(parts, matches!(op, b'a' | b'e'))?;
            }
            _ => {
                let value = self.value(op)?;
                self.pickle.count()?;
                self.stack.push(value);
            }
        }
        Ok(None)
    }

    /// The value of an instruction that pushes one.
    fn value(&mut self, op: u8) -> Parsed<PickleValue> {
        use PickleValue::{Bool, Int, None, Other, Text};
        let width = width(op);
        Ok(match op {
            b'2' => self.top()?,
            b'h' | b'j' => self.recall(width)?,
            b'N' => None,
            0x88 => Bool(true),
            0x89 => Bool(false),
            b'J' => Int(i64::from(self.number(width)? as u32 as i32)),
            b'K' | b'M' => Int(self.number(width)? as i64),
            0x8a | 0x8b => self.long(width)?,
            b'G' => self.take(8).map(|_| Other)?,
            b'U' | b'T' | b'X' | 0x8c | 0x8d => Text(self.counted(width)?),
            b'C' | b'B' | 0x8e | 0x96 => self.counted(width).map(|_| Other)?,
            b'R' | 0x81 | 0x92 => {
                // the last one has named arguments, too
                let parts = self.pop_many(if op == 0x92 { 3 } else { 2 })?;
                self.pickle.call(parts[0], parts[1])?
            }
            _ => {
                let object = self.new_parts(op)?;
                self.pickle.new_object(object)
            }
        })
    }

    /// Tuples, lists, dicts, sets, globals and storages.
    fn new_parts(&mut self, op: u8) -> Parsed<PickleObject> {
        use PickleObject::{Dict, Inert, List, Storage, Tuple};
        Ok(match op {
            b')' => Tuple(Vec::new()),
            0x85..=0x87 => Tuple(self.pop_many(usize::from(op - 0x84))?),
            b't' => Tuple(self.pop_mark()?),
            b']' => List(Vec::new()),
            b'l' => List(self.pop_mark()?),
            b'}' => Dict(Vec::new()),
            b'd' => Dict(pairs(&self.pop_mark()?).ok_or(NO_DICT)?),
            0x8f => Inert,
            0x91 => self.pop_mark().map(|_| Inert)?,
            b'c' => PickleObject::Global(Global::find(self.line()?, self.line()?)?),
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let text = |value| self.pickle.text(value).ok_or(NO_NAME);
                PickleObject::Global(Global::find(text(module)?, text(name)?)?)
            }
            b'Q' => {
                let id = self.pop()?;
                Storage(self.pickle.storage(id)?)
            }
            _ => {
                return Err(format!(
                    "expected instructions that torch.save writes, found 0x{op:02x}"
                ));
            }
        })
    }

    /// The height of the stack at the last mark.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn top(&self) -> Parsed<PickleValue> {
        let top = self.stack.last().filter(|_| self.stack.len() > self.floor());
        top.copied().ok_or_else(|| MISSING.into())
    }

    fn pop(&mut self) -> Parsed<PickleValue> {
        let value = self.top()?;
        self.stack.pop();
        Ok(value)
    }

    /// The last values, at least as many as there are above the last mark.
    fn pop_many(&mut self, count: usize) -> Parsed<Vec<PickleValue>> {
        let start = self.stack.len().checked_sub(count);
        let start = start.filter(|&start| start >= self.floor()).ok_or(MISSING)?;
        Ok(self.stack.split_off(start))
    }

    /// The values above the last mark.
    fn pop_mark(&mut self) -> Parsed<Vec<PickleValue>> {
        let mark = self.marks.pop().ok_or("damaged: a mark is missing")?;
        Ok(self.stack.drain(mark..).collect())
    }

    /// Adds parts to the list, or entries to the dict, at the top of the stack.
    fn add(&mut self, parts: Vec<PickleValue>, to_list: bool) -> Parsed<()> {
        let top = match self.top()? {
            PickleValue::Object(index) => self.pickle.objects.get_mut(index as usize),
            _ => None,
        };
        match top {
            Some(PickleObject::Inert) => {}
            Some(PickleObject::List(list)) if to_list => list.extend(parts),
            Some(PickleObject::Dict(dict)) if !to_list => {
                dict.extend(pairs(&parts).ok_or(NO_DICT)?)
            }
            _ => return Err(if to_list { "damaged: a list is missing" } else { NO_DICT }.into()),
        }
        Ok(())
    }

    /// Keeps the top of the stack under a number.
    fn keep(&mut self, index: usize) -> Parsed<()> {
        let value = self.top()?;
        if index >= MAX_VALUES {
            return Err(format!("expected at most {MAX_VALUES} values, found number {index}"));
        }
        if self.memo.len() <= index {
            self.memo.resize(index + 1, None);
        }
        self.memorized += usize::from(self.memo[index].is_none());
        self.memo[index] = Some(value);
        Ok(())
    }

    fn recall(&mut self, width: usize) -> Parsed<PickleValue> {
        let index = self.number(width)?;
        let value = self.memo.get(index).copied().flatten();
        Ok(value.ok_or("damaged: it refers to a value that it has not made")?)
    }

    fn take(&mut self, len: usize) -> Parsed<&'a [u8]> {
        let bytes = self.pickle.bytes[self.at..].get(..len).ok_or(CUT)?;
        self.at += len;
        Ok(bytes)
    }

    /// A whole number of `width` bytes, at most eight.
    fn number(&mut self, width: usize) -> Parsed<usize> {
        let bytes = self.take(width)?;
        usize::try_from(little_endian(bytes)).map_err(|_| "a length is too large".into())
    }

    /// Bytes behind their count, which has `width` bytes.
    fn counted(&mut self, width: usize) -> Parsed<ByteSpan> {
        let len = self.number(width)?;
        let start = self.at;
        self.take(len)?;
        // both below the 4 GiB that `load` looks at
        Ok(ByteSpan { start: start as u32, len: len as u32 })
    }

    fn long(&mut self, width: usize) -> Parsed<PickleValue> {
        let span = self.counted(width)?;
        let bytes = self.pickle.bytes(span);
        if bytes.len() > 8 {
            return Ok(PickleValue::Long(span));
        }
        let sign = bytes.last().is_some_and(|&last| last >= 0x80);
        let mut wide = [if sign { 0xff } else { 0 }; 8];
        wide[..bytes.len()].copy_from_slice(bytes);
        Ok(PickleValue::Int(i64::from_le_bytes(wide)))
    }

    fn line(&mut self) -> Parsed<&'a str> {
        let rest = &self.pickle.bytes[self.at..];
        let len = rest.iter().position(|&byte| byte == b'\n').ok_or(CUT)?;
        self.at += len + 1;
        std::str::from_utf8(&rest[..len]).map_err(|_| NO_NAME.into())
    }
}

/// Bytes of the number that stands behind an instruction.
fn width(op: u8) -> usize {
    match op {
        b'M' => 2,
        b'j' | b'r' | b'J' | b'T' | b'X' | b'B' | 0x8b => 4,
        0x8d | 0x8e | 0x96 => 8,
        _ => 1,
    }
}
