//! The table of contents of a zip archive whose entries are stored as they are, as `torch.save` writes
//! them.
//!
//! The `zip` crate would reserve memory for as many entries as the archive says that it has.

use std::collections::HashMap;

use crate::Result;
use crate::files::checked_file::{CheckedFile, shown};
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
    method: u16,
    flags: u16,
}

impl Archive {
    pub(super) fn open(file: &CheckedFile) -> Result<Self> {
        let (count, directory, len) = directory(file)?;
        if len > MAX_ZIP_DIRECTORY_BYTES {
            return Err(file.wrong(format!(
                "expected a table of contents of at most {MAX_ZIP_DIRECTORY_BYTES} bytes, found {len}"
            )));
        }
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
        let wrong = |message: &str| file.wrong(format!("entry {}: {message}", shown(name)));
        if entry.flags & 1 != 0 {
            return Err(wrong("it is encrypted"));
        }
        if entry.method != 0 || entry.stored_len != entry.len {
            return Err(wrong(
                "it is compressed; expected entries stored as torch.save stores them",
            ));
        }
        let local = file.bytes(&shown(name), entry.start, LOCAL)?;
        if !local.starts_with(b"PK\x03\x04") {
            return Err(wrong("the archive is damaged: its header is not where it should be"));
        }
        let (name_len, extra_len) = (u16_at(&local, 26), u16_at(&local, 28));
        let start = entry.start + LOCAL + u64::from(name_len) + u64::from(extra_len);
        match start.checked_add(entry.len) {
            Some(end) if end <= self.directory => Ok(Some(ZipEntry { start, ..entry })),
            _ => Err(wrong("the archive is damaged: its bytes reach beyond the entries")),
        }
    }
}

/// The directory: number of entries, first byte, number of bytes.
fn directory(file: &CheckedFile) -> Result<(u64, u64, u64)> {
    const CUT: &str =
        "expected a zip archive as torch.save writes it, found no end of it; is the file cut?";
    let record = |at: Option<u64>, len, signature| {
        let at = at.ok_or_else(|| file.wrong(CUT))?;
        let bytes = file.bytes("the archive's end", at, len)?;
        match bytes.starts_with(signature) {
            true => Ok((at, bytes)),
            false => Err(file.wrong(CUT)),
        }
    };
    let (at, end) = record(file.len().checked_sub(END), END, b"PK\x05\x06")?;
    if u16_at(&end, 20) != 0 {
        return Err(file.wrong(CUT));
    }
    let (count, len, start) = (u16_at(&end, 10), u32_at(&end, 12), u32_at(&end, 16));
    let (count, len, start, limit) = if count == u16::MAX || len == u32::MAX || start == u32::MAX {
        let (_, locator) = record(at.checked_sub(LOCATOR), LOCATOR, b"PK\x06\x07")?;
        let (at, end) = record(Some(u64_at(&locator, 8)), END64, b"PK\x06\x06")?;
        (u64_at(&end, 32), u64_at(&end, 40), u64_at(&end, 48), at)
    } else {
        (u64::from(count), u64::from(len), u64::from(start), at)
    };
    match start.checked_add(len) {
        Some(end) if end <= limit => Ok((count, start, len)),
        _ => Err(file.wrong(format!(
            "the archive is damaged: its table of contents should be {len} bytes from byte {start} on, its end is at byte {limit}"
        ))),
    }
}

fn entries(mut bytes: &[u8], count: u64) -> Result<HashMap<String, ZipEntry>, String> {
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

fn header(fixed: &[u8; ENTRY], extra: &[u8]) -> Option<ZipEntry> {
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
    Some(ZipEntry {
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
