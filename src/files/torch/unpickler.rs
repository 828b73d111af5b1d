//! Pickles read as data: nothing is imported, nothing is called.
//!
//! Values refer to one another by index, so that cycles and values that are used a million times over
//! take no more room than they do in the file, and nothing here recurses.

use super::globals::Global;
use super::objects::{ByteSpan, Parsed, Pickle, PickleObject, PickleValue};

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
const CUT: &str = "the pickle ends too early; is the file cut?";

/// Reads the pickle of at most `values` values that `bytes` start with: it, its value, and its length.
pub(super) fn load(bytes: &[u8], values: usize) -> Parsed<(Pickle<'_>, PickleValue, usize)> {
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
            Err(message) => return Err(format!("{message} (byte {at} of the pickle)")),
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
            b'q' => self.memorize(1)?,
            b'r' => self.memorize(4)?,
            0x94 => self.keep(self.memorized)?,
            b'a' => {
                let part = self.pop()?;
                self.append(vec![part])?;
            }
            b'e' => {
                let parts = self.pop_mark()?;
                self.append(parts)?;
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.insert(&[key, value])?;
            }
            b'u' => {
                let parts = self.pop_mark()?;
                self.insert(&parts)?;
            }
            _ => {
                let value = self.value(op)?;
                self.push(value)?;
            }
        }
        Ok(None)
    }

    /// The value of an instruction that pushes one.
    fn value(&mut self, op: u8) -> Parsed<PickleValue> {
        use PickleValue::{Bool, Int, None, Other, Text};
        Ok(match op {
            b'2' => self.top()?,
            b'h' => self.recall(1)?,
            b'j' => self.recall(4)?,
            b'N' => None,
            0x88 => Bool(true),
            0x89 => Bool(false),
            b'J' => Int(i64::from(self.number(4)? as u32 as i32)),
            b'K' => Int(self.number(1)? as i64),
            b'M' => Int(self.number(2)? as i64),
            0x8a => self.long(1)?,
            0x8b => self.long(4)?,
            b'G' => self.take(8).map(|_| Other)?,
            b'U' | 0x8c => Text(self.counted(1)?),
            b'T' | b'X' => Text(self.counted(4)?),
            0x8d => Text(self.counted(8)?),
            b'C' => self.counted(1).map(|_| Other)?,
            b'B' => self.counted(4).map(|_| Other)?,
            0x8e | 0x96 => self.counted(8).map(|_| Other)?,
            b'R' | 0x81 => {
                let (args, callee) = (self.pop()?, self.pop()?);
                self.pickle.call(callee, args)?
            }
            0x92 => {
                let (_, args, callee) = (self.pop()?, self.pop()?, self.pop()?);
                self.pickle.call(callee, args)?
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
            0x85..=0x87 => {
                let start = self.stack.len().checked_sub(usize::from(op - 0x84));
                let start = start.filter(|&start| start >= self.floor()).ok_or(MISSING)?;
                Tuple(self.stack.split_off(start))
            }
            b't' => Tuple(self.pop_mark()?),
            b']' => List(Vec::new()),
            b'l' => List(self.pop_mark()?),
            b'}' => Dict(Vec::new()),
            b'd' => Dict(pairs(&self.pop_mark()?)?),
            0x8f => Inert,
            0x91 => self.pop_mark().map(|_| Inert)?,
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                PickleObject::Global(Global::find(module, name)?)
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let text = |value| {
                    self.pickle.text(value).ok_or("a global's name: expected text, found none")
                };
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

    fn push(&mut self, value: PickleValue) -> Parsed<()> {
        self.pickle.count()?;
        self.stack.push(value);
        Ok(())
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

    /// The values above the last mark.
    fn pop_mark(&mut self) -> Parsed<Vec<PickleValue>> {
        let mark = self.marks.pop().ok_or("damaged: a mark is missing")?;
        Ok(self.stack.drain(mark..).collect())
    }

    fn top_object(&mut self) -> Parsed<Option<&mut PickleObject>> {
        Ok(match self.top()? {
            PickleValue::Object(index) => self.pickle.objects.get_mut(index as usize),
            _ => None,
        })
    }

    fn append(&mut self, parts: Vec<PickleValue>) -> Parsed<()> {
        match self.top_object()? {
            Some(PickleObject::List(list)) => list.extend(parts),
            Some(PickleObject::Inert) => {}
            _ => return Err("damaged: a list is missing".into()),
        }
        Ok(())
    }

    fn insert(&mut self, parts: &[PickleValue]) -> Parsed<()> {
        match self.top_object()? {
            Some(PickleObject::Dict(dict)) => dict.extend(pairs(parts)?),
            Some(PickleObject::Inert) => {}
            _ => return Err("damaged: a dict is missing".into()),
        }
        Ok(())
    }

    fn memorize(&mut self, width: usize) -> Parsed<()> {
        let index = self.number(width)?;
        self.keep(index)
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
        let number = bytes.iter().rev().fold(0u64, |sum, &byte| sum << 8 | u64::from(byte));
        usize::try_from(number).map_err(|_| "a length is too large".to_string())
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
        std::str::from_utf8(&rest[..len]).map_err(|_| "a global's name: expected text".into())
    }
}

/// Keys and values that alternate.
fn pairs(parts: &[PickleValue]) -> Parsed<Vec<(PickleValue, PickleValue)>> {
    match parts.as_chunks::<2>() {
        (pairs, []) => Ok(pairs.iter().map(|&[key, value]| (key, value)).collect()),
        _ => Err("damaged: a dict is missing".into()),
    }
}
