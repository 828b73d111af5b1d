//! The table of contents of a zip archive whose entries are stored as they are, as `torch.save` writes
//! them.
//!
//! The `zip` crate would reserve memory for as many entries as the archive says that it has.

use std::collections::HashMap;

use crate::Result;
use crate::files::checked_file::{CheckedFile, little_endian, shown};
use crate::files::names::MAX_ZIP_DIRECTORY_BYTES;

/// Record of the end, with no comment behind it.
const END: u64 = 22;
/// Tells where the record of the end with 64-bit numbers is.
const LOCATOR: u64 = 20;
/// Record of the end with 64-bit numbers.
const END64: u64 = 56;
/// Fixed part of an entry of the directory, and of the header before an entry's bytes.
const ENTRY: usize = 46;
const LOCAL: u64 = 30;
/// Stand in the place of numbers that do not fit.
const NONE_16: u64 = 0xffff;
const NONE_32: [u8; 4] = [0xff; 4];

/// An archive's entries by name.
#[derive(Debug)]
pub(super) struct Archive {
    entries: HashMap<String, ZipEntry>,
    /// The first byte of the directory, where the entries end.
    directory: u64,
}

/// An entry of the directory.
#[derive(Debug, Clone, Copy)]
pub(super) struct ZipEntry {
    /// The first byte: of its header in the directory, of its content from [`Archive::find`].
    pub start: u64,
    pub len: u64,
    stored_len: u64,
    pub crc: u32,
    method: u64,
    flags: u64,
}

impl Archive {
    pub(super) fn open(file: &CheckedFile) -> Result<Self> {
        let (count, directory, len) = directory(file)?;
        file.require(len <= MAX_ZIP_DIRECTORY_BYTES, || {
            format!("expected a table of contents of at most {MAX_ZIP_DIRECTORY_BYTES} bytes, found {len}")
        })?;
        let bytes = file.bytes("the archive's table of contents", directory, len)?;
        let entries = entries(&bytes, count)
            .map_err(|message| file.wrong(format!("the archive's table of contents: {message}")))?;
        Ok(Self { entries, directory })
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Finds the bytes of an entry, if there is one of this name.
    pub(super) fn find(&self, file: &CheckedFile, name: &str) -> Result<Option<ZipEntry>> {
        let Some(&entry) = self.entries.get(name) else {
            return Ok(None);
        };
        let require = |is_right, message: &str| {
            file.require(is_right, || format!("entry {}: {message}", shown(name)))
        };
        require(entry.flags & 1 == 0, "it is encrypted")?;
        let is_plain = entry.method == 0 && entry.stored_len == entry.len;
        require(is_plain, "it is compressed; expected entries stored as torch.save stores them")?;
        let local = file.bytes(&shown(name), entry.start, LOCAL)?;
        let is_there = local.starts_with(b"PK\x03\x04");
        require(is_there, "the archive is damaged: its header is not where it should be")?;
        let start = entry.start + LOCAL + number(&local, 26, 2) + number(&local, 28, 2);
        let is_inside = start.checked_add(entry.len).is_some_and(|end| end <= self.directory);
        require(is_inside, "the archive is damaged: its bytes reach beyond the entries")?;
        Ok(Some(ZipEntry { start, ..entry }))
    }
}

/// The directory: number of entries, first byte, number of bytes.
fn directory(file: &CheckedFile) -> Result<(u64, u64, u64)> {
    const CUT: &str =
        "expected a zip archive as torch.save writes it, found no end of it; is the file cut?";
    let record = |at: Option<u64>, len, signature| {
        let at = at.ok_or_else(|| file.wrong(CUT))?;
        let bytes = file.bytes("the archive's end", at, len)?;
        file.require(bytes.starts_with(signature), || CUT.into()).map(|()| (at, bytes))
    };
    let (at, end) = record(file.len().checked_sub(END), END, b"PK\x05\x06")?;
    file.require(number(&end, 20, 2) == 0, || CUT.into())?;
    let is_small = number(&end, 10, 2) != NONE_16 && !end[12..20].as_chunks().0.contains(&NONE_32);
    let (limit, [count, len, start]) = match is_small {
        true => (at, [(10, 2), (12, 4), (16, 4)].map(|(at, width)| number(&end, at, width))),
        false => {
            let (_, locator) = record(at.checked_sub(LOCATOR), LOCATOR, b"PK\x06\x07")?;
            let (at, end) = record(Some(number(&locator, 8, 8)), END64, b"PK\x06\x06")?;
            (at, [32, 40, 48].map(|at| number(&end, at, 8)))
        }
    };
    file.require(start.checked_add(len).is_some_and(|end| end <= limit), || {
        format!("the archive is damaged: its table of contents should be {len} bytes from byte {start} on, its end is at byte {limit}")
    })?;
    Ok((count, start, len))
}

fn entries(mut bytes: &[u8], count: u64) -> Result<HashMap<String, ZipEntry>, String> {
    let mut entries = HashMap::new();
    while let Some((fixed, rest)) = bytes.split_at_checked(ENTRY) {
        let place = entries.len();
        if !fixed.starts_with(b"PK\x01\x02") {
            return Err(format!("entry {place} is damaged"));
        }
        let [name, extra, comment] = [28, 30, 32].map(|at| number(fixed, at, 2) as usize);
        let own = rest.split_at_checked(name + extra + comment);
        let (own, rest) = own.ok_or_else(|| format!("entry {place} is cut"))?;
        let (name, own) = own.split_at(name);
        let name = String::from_utf8_lossy(name).into_owned();
        let wrong = |fault| format!("entry {} {fault}", shown(&name));
        let entry = entry(fixed, &own[..extra]).ok_or_else(|| wrong("is damaged"))?;
        let twice = wrong("stands there twice");
        if entries.insert(name, entry).is_some() {
            return Err(twice);
        }
        bytes = rest;
    }
    match bytes.is_empty() && entries.len() as u64 == count {
        true => Ok(entries),
        false => Err(format!("expected {count} entries, found {}", entries.len())),
    }
}

fn entry(fixed: &[u8], extra: &[u8]) -> Option<ZipEntry> {
    // sizes that do not fit are in the extra field 1, in this order
    let mut wide = field(extra, 1).unwrap_or_default().as_chunks::<8>().0.iter();
    let mut size = |at: usize| match fixed[at..][..4] == NONE_32 {
        true => wide.next().map(|size| u64::from_le_bytes(*size)),
        false => Some(number(fixed, at, 4)),
    };
    Some(ZipEntry {
        len: size(24)?,
        stored_len: size(20)?,
        start: size(42)?,
        crc: number(fixed, 16, 4) as u32,
        method: number(fixed, 10, 2),
        flags: number(fixed, 8, 2),
    })
}

/// The content of an extra field.
fn field(mut extra: &[u8], wanted: u64) -> Option<&[u8]> {
    loop {
        let (head, rest) = extra.split_at_checked(4)?;
        let (content, rest) = rest.split_at_checked(number(head, 2, 2) as usize)?;
        if number(head, 0, 2) == wanted {
            return Some(content);
        }
        extra = rest;
    }
}

fn number(bytes: &[u8], at: usize, width: usize) -> u64 {
    little_endian(&bytes[at..][..width])
}
