//! The table of contents of a zip archive whose entries are stored as they are, as `torch.save` writes
//! them.
//!
//! The `zip` crate would reserve memory for as many entries as the archive says that it has.

use std::collections::HashMap;

use super::source::{Source, shown};
use crate::Result;

/// An entry takes about eighty bytes of it.
const MAX_DIRECTORY_BYTES: u64 = 1 << 23;

/// Record of the end, with no comment behind it.
const END: u64 = 22;
/// Tells where the record of the end with 64-bit numbers is.
const LOCATOR: u64 = 20;
/// Record of the end with 64-bit numbers.
const END64: u64 = 56;
/// Fixed part of an entry of the directory, and of the header before an entry's bytes.
const ENTRY: usize = 46;
const LOCAL: u64 = 30;

/// An archive's entries by name.
#[derive(Debug)]
pub(super) struct Archive {
    entries: HashMap<String, Header>,
    /// Where the directory starts and the entries end.
    directory: u64,
}

#[derive(Debug, Clone, Copy)]
struct Header {
    start: u64,
    len: u64,
    stored_len: u64,
    crc: u32,
    method: u16,
    flags: u16,
}

/// The bytes of an entry.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stored {
    pub start: u64,
    pub len: u64,
    pub crc: u32,
}

impl Archive {
    pub(super) fn open(source: &Source) -> Result<Self> {
        let (count, directory, len) = directory(source)?;
        if len > MAX_DIRECTORY_BYTES {
            return Err(source.wrong(format!(
                "expected a table of contents of at most {MAX_DIRECTORY_BYTES} bytes, found {len}"
            )));
        }
        let bytes = source.bytes("the archive's table of contents", directory, len)?;
        let entries = entries(&bytes, count).map_err(|message| {
            source.wrong(format!("the archive's table of contents: {message}"))
        })?;
        Ok(Self { entries, directory })
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Where the bytes of an entry lie, if there is one of this name.
    pub(super) fn find(&self, source: &Source, name: &str) -> Result<Option<Stored>> {
        let Some(&header) = self.entries.get(name) else {
            return Ok(None);
        };
        let wrong = |message: &str| source.wrong(format!("entry {}: {message}", shown(name)));
        if header.flags & 1 != 0 {
            return Err(wrong("it is encrypted"));
        }
        if header.method != 0 || header.stored_len != header.len {
            return Err(wrong(
                "it is compressed; expected entries stored as torch.save stores them",
            ));
        }
        let local = source.bytes(&shown(name), header.start, LOCAL)?;
        if !local.starts_with(b"PK\x03\x04") {
            return Err(wrong("the archive is damaged: its header is not where it should be"));
        }
        let (name_len, extra_len) = (u16_at(&local, 26), u16_at(&local, 28));
        let start = header.start + LOCAL + u64::from(name_len) + u64::from(extra_len);
        match start.checked_add(header.len) {
            Some(end) if end <= self.directory => {
                Ok(Some(Stored { start, len: header.len, crc: header.crc }))
            }
            _ => Err(wrong("the archive is damaged: its bytes reach beyond the entries")),
        }
    }
}

/// How many entries the directory has, its first byte, its bytes.
fn directory(source: &Source) -> Result<(u64, u64, u64)> {
    let cut = || {
        source.wrong(
            "expected a zip archive as torch.save writes it, found no end of it; is the file cut?",
        )
    };
    let end_at = source.len().checked_sub(END).ok_or_else(cut)?;
    let end = source.bytes("the archive's end", end_at, END)?;
    if !end.starts_with(b"PK\x05\x06") || u16_at(&end, 20) != 0 {
        return Err(cut());
    }
    let (count, len, start) = (u16_at(&end, 10), u32_at(&end, 12), u32_at(&end, 16));
    let (count, len, start, limit) = if count == u16::MAX || len == u32::MAX || start == u32::MAX {
        let locator_at = end_at.checked_sub(LOCATOR).ok_or_else(cut)?;
        let locator = source.bytes("the archive's end", locator_at, LOCATOR)?;
        if !locator.starts_with(b"PK\x06\x07") {
            return Err(cut());
        }
        let end64_at = u64_at(&locator, 8);
        let end64 = source.bytes("the archive's end", end64_at, END64)?;
        if !end64.starts_with(b"PK\x06\x06") {
            return Err(cut());
        }
        (u64_at(&end64, 32), u64_at(&end64, 40), u64_at(&end64, 48), end64_at)
    } else {
        (u64::from(count), u64::from(len), u64::from(start), end_at)
    };
    match start.checked_add(len) {
        Some(end) if end <= limit => Ok((count, start, len)),
        _ => Err(source.wrong(format!(
            "the archive is damaged: its table of contents should be {len} bytes from byte {start} on, its end is at byte {limit}"
        ))),
    }
}

fn entries(mut bytes: &[u8], count: u64) -> Result<HashMap<String, Header>, String> {
    let mut entries = HashMap::new();
    while let Some((fixed, rest)) = bytes.split_first_chunk::<ENTRY>() {
        if !fixed.starts_with(b"PK\x01\x02") {
            return Err(format!("entry {} is damaged", entries.len()));
        }
        let lengths = [28, 30, 32].map(|at| usize::from(u16_at(fixed, at)));
        let [name_len, extra_len, comment_len] = lengths;
        let cut = || format!("entry {} is cut", entries.len());
        let (name, rest) = rest.split_at_checked(name_len).ok_or_else(cut)?;
        let (extra, rest) = rest.split_at_checked(extra_len).ok_or_else(cut)?;
        let (_, rest) = rest.split_at_checked(comment_len).ok_or_else(cut)?;
        let name = String::from_utf8_lossy(name).into_owned();
        let header =
            header(fixed, extra).ok_or_else(|| format!("entry {} is damaged", shown(&name)))?;
        let twice = format!("entry {} stands there twice", shown(&name));
        if entries.insert(name, header).is_some() {
            return Err(twice);
        }
        bytes = rest;
    }
    match bytes.is_empty() && entries.len() as u64 == count {
        true => Ok(entries),
        false => Err(format!("expected {count} entries, found {}", entries.len())),
    }
}

fn header(fixed: &[u8; ENTRY], extra: &[u8]) -> Option<Header> {
    let mut sizes = [24, 20, 42].map(|at| u64::from(u32_at(fixed, at)));
    if sizes.contains(&u64::from(u32::MAX)) {
        // those that do not fit are in the extra field 1, in this order
        let mut wide = field(extra, 1)?;
        for size in sizes.iter_mut().filter(|size| **size == u64::from(u32::MAX)) {
            let (first, rest) = wide.split_first_chunk::<8>()?;
            *size = u64::from_le_bytes(*first);
            wide = rest;
        }
    }
    let [len, stored_len, start] = sizes;
    Some(Header {
        start,
        len,
        stored_len,
        crc: u32_at(fixed, 16),
        method: u16_at(fixed, 10),
        flags: u16_at(fixed, 8),
    })
}

/// The content of an extra field.
fn field(mut extra: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let (head, rest) = extra.split_first_chunk::<4>()?;
        let (content, rest) = rest.split_at_checked(usize::from(u16_at(head, 2)))?;
        if u16_at(head, 0) == wanted {
            return Some(content);
        }
        extra = rest;
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
