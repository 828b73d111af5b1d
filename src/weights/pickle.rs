//! Pickles read as data: nothing is imported, nothing is called.
//!
//! Values refer to one another by index, so that cycles and values that are used a million times over
//! take no more room than they do in the file, and nothing here recurses.

use super::globals::Global;
use super::values::{Object, Span, Value};

/// Values that a pickle may make; a tensor takes about thirty.
pub(super) const MAX_VALUES: usize = 1_000_000;

/// A pickle and the values it has made.
pub(super) struct Pickle<'a> {
    pub(super) bytes: &'a [u8],
    at: usize,
    pub(super) objects: Vec<Object>,
    stack: Vec<Value>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: Vec<Option<Value>>,
    memorized: usize,
    /// Values that it may still make.
    left: usize,
}

const MISSING: &str = "damaged: a value is missing";
const CUT: &str = "the pickle ends too early; is the file cut?";

type Result<T> = std::result::Result<T, String>;

impl<'a> Pickle<'a> {
    /// Reads the pickle of at most `values` values that `bytes` start with: it, its value, and how long
    /// it is.
    pub(super) fn load(bytes: &'a [u8], values: usize) -> Result<(Self, Value, usize)> {
        let bytes = &bytes[..bytes.len().min(u32::MAX as usize)];
        let mut pickle = Self {
            bytes,
            at: 0,
            objects: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: Vec::new(),
            memorized: 0,
            left: values,
        };
        loop {
            let at = pickle.at;
            match pickle.step() {
                Ok(None) => {}
                Ok(Some(value)) => {
                    let end = pickle.at;
                    return Ok((pickle, value, end));
                }
                Err(message) => return Err(format!("{message} (byte {at} of the pickle)")),
            }
        }
    }

    /// One instruction; the value where it is the last one.
    fn step(&mut self) -> Result<Option<Value>> {
        let op = self.take(1)?[0];
        match op {
            // versions 0 and 1 do not say so
            0x80 => match self.take(1)?[0] {
                2..=5 => {}
                version => return Err(format!("expected pickle protocol 2 to 5, found {version}")),
            },
            0x95 => drop(self.take(8)?),
            b'.' => return self.pop().map(Some),
            b'(' => {
                self.count()?;
                self.marks.push(self.stack.len());
            }
            b'0' if self.marks.last() == Some(&self.stack.len()) => drop(self.marks.pop()),
            b'0' => drop(self.pop()?),
            b'1' => drop(self.pop_mark()?),
            b'2' => {
                let top = self.top()?;
                self.push(top)?;
            }
            b'q' => {
                let index = self.take(1)?[0];
                self.memorize(usize::from(index))?;
            }
            b'r' => {
                let index = self.number4()?;
                self.memorize(index)?;
            }
            0x94 => self.memorize(self.memorized)?,
            b'h' => {
                let index = self.take(1)?[0];
                self.recall(usize::from(index))?;
            }
            b'j' => {
                let index = self.number4()?;
                self.recall(index)?;
            }
            b'N' | 0x88 | 0x89 | b'J' | b'K' | b'M' | 0x8a | 0x8b | b'G' | b'X' | b'U' | b'T'
            | b'B' | b'C' | 0x8c | 0x8d | 0x8e | 0x96 => {
                let value = self.plain(op)?;
                self.push(value)?;
            }
            b'c' | 0x93 | b'R' | 0x81 | 0x92 | b'b' | b'Q' => self.global(op)?,
            _ => self.container(op)?,
        }
        Ok(None)
    }

    /// Numbers, text and the like.
    fn plain(&mut self, op: u8) -> Result<Value> {
        Ok(match op {
            b'N' => Value::None,
            0x88 => Value::Bool(true),
            0x89 => Value::Bool(false),
            b'J' => Value::Int(i64::from(self.number4()? as u32 as i32)),
            b'K' => Value::Int(i64::from(self.take(1)?[0])),
            b'M' => {
                let bytes = self.take(2)?;
                Value::Int(i64::from(u16::from_le_bytes([bytes[0], bytes[1]])))
            }
            0x8a => {
                let len = usize::from(self.take(1)?[0]);
                self.long(len)?
            }
            0x8b => {
                let len = self.number4()?;
                self.long(len)?
            }
            b'G' => {
                self.take(8)?;
                Value::Other
            }
            b'U' | 0x8c => {
                let len = usize::from(self.take(1)?[0]);
                Value::Text(self.span(len)?)
            }
            b'T' | b'X' => {
                let len = self.number4()?;
                Value::Text(self.span(len)?)
            }
            0x8d => {
                let len = self.number8()?;
                Value::Text(self.span(len)?)
            }
            b'C' => {
                let len = usize::from(self.take(1)?[0]);
                self.skipped(len)?
            }
            b'B' => {
                let len = self.number4()?;
                self.skipped(len)?
            }
            _ => {
                let len = self.number8()?;
                self.skipped(len)?
            }
        })
    }

    /// Tuples, lists, dicts and sets.
    fn container(&mut self, op: u8) -> Result<()> {
        match op {
            b')' => self.make(Object::Tuple(Vec::new())),
            0x85..=0x87 => {
                let floor = self.marks.last().copied().unwrap_or(0);
                let start = self.stack.len().checked_sub(usize::from(op - 0x84));
                let start = start.filter(|&start| start >= floor).ok_or(MISSING)?;
                let parts = self.stack.split_off(start);
                self.make(Object::Tuple(parts))
            }
            b't' => {
                let parts = self.pop_mark()?;
                self.make(Object::Tuple(parts))
            }
            b']' => self.make(Object::List(Vec::new())),
            b'l' => {
                let parts = self.pop_mark()?;
                self.make(Object::List(parts))
            }
            b'a' => {
                let part = self.pop()?;
                self.append(vec![part])
            }
            b'e' => {
                let parts = self.pop_mark()?;
                self.append(parts)
            }
            b'}' => self.make(Object::Dict(Vec::new())),
            b'd' => {
                let parts = self.pop_mark()?;
                self.make(Object::Dict(Vec::new()))?;
                self.insert(&parts)
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.insert(&[key, value])
            }
            b'u' => {
                let parts = self.pop_mark()?;
                self.insert(&parts)
            }
            0x8f => self.make(Object::Inert),
            0x90 => self.pop_mark().map(drop),
            0x91 => {
                self.pop_mark()?;
                self.make(Object::Inert)
            }
            _ => Err(format!("expected instructions that torch.save writes, found 0x{op:02x}")),
        }
    }

    /// What names or calls a global.
    fn global(&mut self, op: u8) -> Result<()> {
        let made = match op {
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                Object::Global(Global::find(module, name)?)
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let text =
                    |value| self.text(value).ok_or("a global's name: expected text, found none");
                Object::Global(Global::find(text(module)?, text(name)?)?)
            }
            b'Q' => {
                let id = self.pop()?;
                Object::Storage(self.storage(id)?)
            }
            // what an object is told of itself changes no tensor
            b'b' => return self.pop().and_then(|_| self.top()).map(drop),
            _ => {
                if op == 0x92 {
                    self.pop()?;
                }
                let (args, callee) = (self.pop()?, self.pop()?);
                let value = self.call(callee, args)?;
                return self.push(value);
            }
        };
        self.make(made)
    }

    /// A value for something new.
    pub(super) fn new_object(&mut self, object: Object) -> Value {
        self.objects.push(object);
        // there are at most MAX_VALUES
        Value::Object((self.objects.len() - 1) as u32)
    }

    fn make(&mut self, object: Object) -> Result<()> {
        let value = self.new_object(object);
        self.push(value)
    }

    /// Makes room for one more value.
    pub(super) fn count(&mut self) -> Result<()> {
        let left = self.left.checked_sub(1);
        self.left = left.ok_or("it has more values than the tensors of a model need")?;
        Ok(())
    }

    fn push(&mut self, value: Value) -> Result<()> {
        self.count()?;
        self.stack.push(value);
        Ok(())
    }

    fn top(&self) -> Result<Value> {
        match self.stack.last() {
            Some(&value) if self.stack.len() > self.marks.last().copied().unwrap_or(0) => Ok(value),
            _ => Err(MISSING.into()),
        }
    }

    fn pop(&mut self) -> Result<Value> {
        let value = self.top()?;
        self.stack.pop();
        Ok(value)
    }

    /// The values above the last mark.
    fn pop_mark(&mut self) -> Result<Vec<Value>> {
        let mark = self.marks.pop().ok_or("damaged: a mark is missing")?;
        Ok(self.stack.drain(mark..).collect())
    }

    fn append(&mut self, parts: Vec<Value>) -> Result<()> {
        match self.top()? {
            Value::Object(index) => match &mut self.objects[index as usize] {
                Object::List(list) => {
                    list.extend(parts);
                    Ok(())
                }
                Object::Inert => Ok(()),
                _ => Err("damaged: a list is missing".into()),
            },
            _ => Err("damaged: a list is missing".into()),
        }
    }

    fn insert(&mut self, parts: &[Value]) -> Result<()> {
        let (pairs, rest) = parts.as_chunks::<2>();
        match self.top()? {
            Value::Object(index) if rest.is_empty() => match &mut self.objects[index as usize] {
                Object::Dict(dict) => {
                    dict.extend(pairs.iter().map(|&[key, value]| (key, value)));
                    Ok(())
                }
                Object::Inert => Ok(()),
                _ => Err("damaged: a dict is missing".into()),
            },
            _ => Err("damaged: a dict is missing".into()),
        }
    }

    fn memorize(&mut self, index: usize) -> Result<()> {
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

    fn recall(&mut self, index: usize) -> Result<()> {
        let value = self.memo.get(index).copied().flatten();
        self.push(value.ok_or("damaged: it refers to a value that it has not made")?)
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let bytes = self.bytes[self.at..].get(..len).ok_or(CUT)?;
        self.at += len;
        Ok(bytes)
    }

    fn span(&mut self, len: usize) -> Result<Span> {
        let start = self.at;
        self.take(len)?;
        // both below the 4 GiB that `load` looks at
        Ok(Span::new(start as u32, len as u32))
    }

    fn skipped(&mut self, len: usize) -> Result<Value> {
        self.take(len)?;
        Ok(Value::Other)
    }

    fn long(&mut self, len: usize) -> Result<Value> {
        let span = self.span(len)?;
        let bytes = self.bytes(span);
        if len > 8 {
            return Ok(Value::Long(span));
        }
        let sign = bytes.last().is_some_and(|&last| last >= 0x80);
        let mut wide = [if sign { 0xff } else { 0 }; 8];
        wide[..len].copy_from_slice(bytes);
        Ok(Value::Int(i64::from_le_bytes(wide)))
    }

    fn number4(&mut self) -> Result<usize> {
        let bytes = self.take(4)?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize)
    }

    fn number8(&mut self) -> Result<usize> {
        let bytes = self.take(8)?;
        let number = bytes.iter().rev().fold(0u64, |sum, &byte| sum << 8 | u64::from(byte));
        usize::try_from(number).map_err(|_| "a length is too large".to_string())
    }

    fn line(&mut self) -> Result<&'a str> {
        let rest = &self.bytes[self.at..];
        let len = rest.iter().position(|&byte| byte == b'\n').ok_or(CUT)?;
        self.at += len + 1;
        std::str::from_utf8(&rest[..len]).map_err(|_| "a global's name: expected text".into())
    }
}
