//! Files unpacked from gzip and zstd as they are read.

use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Read, Result as IoResult};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use crate::AtPath;
use crate::{Error, Result};

/// `true` for `-`, the name of standard input.
pub fn is_standard_input(path: &Path) -> bool {
    path == Path::new("-")
}

const GZIP: &[u8] = b"\x1f\x8b";
const ZSTD: &[u8] = b"\x28\xb5\x2f\xfd";

/// Bytes of a file, of standard input or of several files, unpacked where they were packed.
pub struct Decompressed {
    reader: Box<dyn Read + Send>,
    bytes: Option<u64>,
}

impl Decompressed {
    /// Opens a file, or standard input where its name is `-`.
    ///
    /// # Errors
    /// [`Error::Io`] naming the file; [`Error::File`] for a folder.
    pub fn open(path: &Path) -> Result<Self> {
        if is_standard_input(path) {
            return unpacked(std::io::stdin(), None).at(path);
        }
        if path.is_dir() {
            return Err(Error::file(path, "expected a text file, found a folder"));
        }
        let file = File::open(path).at(path)?;
        let found = file.metadata().at(path)?;
        // files of the system that say that they are empty need not be
        let is_known = found.is_file() && found.len() > 0;
        unpacked(file, is_known.then_some(found.len())).at(path)
    }

    /// Number of bytes that there are, where it is known before they are read: of a plain file.
    pub fn known_bytes(&self) -> Option<u64> {
        self.bytes
    }

    /// The bytes of a reader as they are.
    pub(crate) fn new(reader: impl Read + Send + 'static) -> Self {
        Self { reader: Box::new(reader), bytes: None }
    }
}

impl Read for Decompressed {
    fn read(&mut self, buffer: &mut [u8]) -> IoResult<usize> {
        self.reader.read(buffer)
    }
}

impl std::fmt::Debug for Decompressed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Decompressed")
    }
}

/// The bytes of a reader, unpacked; there are `bytes` of them where it is plain.
fn unpacked(mut reader: impl Read + Send + 'static, bytes: Option<u64>) -> IoResult<Decompressed> {
    let mut start = Vec::new();
    reader.by_ref().take(ZSTD.len() as u64).read_to_end(&mut start)?;
    let (is_gzip, is_zstd) = (start.starts_with(GZIP), start.starts_with(ZSTD));
    let whole = Cursor::new(start).chain(reader);
    Ok(match (is_gzip, is_zstd) {
        (true, _) => Decompressed::new(MultiGzDecoder::new(BufReader::new(whole))),
        (_, true) => {
            let decoder = FrameDecoder::new();
            Decompressed::new(Frames { reader: BufReader::new(whole), decoder })
        }
        _ => Decompressed { bytes, ..Decompressed::new(whole) },
    })
}

/// The frames of a zstd file, one after the other (RFC 8878, section 3.1).
struct Frames<R> {
    reader: R,
    decoder: FrameDecoder,
}

impl<R: BufRead> Frames<R> {
    /// Begins the next frame with something in it; `false` at the end of the file.
    fn begin(&mut self) -> IoResult<bool> {
        use FrameDecoderError::ReadFrameHeaderError as Header;
        while !self.reader.fill_buf()?.is_empty() {
            match self.decoder.reset(&mut self.reader) {
                Ok(()) => return Ok(true),
                Err(Header(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                    let skipped = &mut self.reader.by_ref().take(length.into());
                    std::io::copy(skipped, &mut std::io::sink())?;
                }
                Err(error) => return Err(std::io::Error::other(error)),
            }
        }
        Ok(false)
    }

    /// Checks a frame that has ended, whose checksum has to be right where it has one.
    fn check_end(&self) -> IoResult<()> {
        match self.decoder.get_checksum_from_data() {
            Some(sum) if self.decoder.get_calculated_checksum() != Some(sum) => {
                Err(std::io::Error::other("the checksum of a zstd frame is wrong"))
            }
            _ => Ok(()),
        }
    }
}

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> IoResult<usize> {
        loop {
            if self.decoder.can_collect() > 0 {
                return self.decoder.read(buffer);
            }
            if !self.decoder.is_finished() {
                let one = BlockDecodingStrategy::UptoBlocks(1);
                let decoded = self.decoder.decode_blocks(&mut self.reader, one);
                decoded.map_err(std::io::Error::other)?;
            } else {
                // so is one that has not begun
                self.check_end()?;
                if !self.begin()? {
                    return Ok(0);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn text_of(packed: &[u8]) -> IoResult<String> {
        let mut text = String::new();
        unpacked(Cursor::new(packed.to_vec()), None)?.read_to_string(&mut text)?;
        Ok(text)
    }

    fn gzip(text: &str) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), Default::default());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(text: &str) -> Vec<u8> {
        use ruzstd::encoding::{CompressionLevel, compress_to_vec};
        compress_to_vec(text.as_bytes(), CompressionLevel::Fastest)
    }

    #[test]
    fn what_was_packed_is_unpacked() {
        let long = "天地玄黃 the quick brown fox\n".repeat(20_000);
        for text in ["", "a", "né", &long] {
            assert_eq!(text_of(text.as_bytes()).unwrap(), text);
            assert_eq!(text_of(&gzip(text)).unwrap(), text);
            assert_eq!(text_of(&zstd(text)).unwrap(), text);
            // several in one file
            let twice = text.repeat(2);
            assert_eq!(text_of(&gzip(text).repeat(2)).unwrap(), twice);
            assert_eq!(text_of(&zstd(text).repeat(2)).unwrap(), twice);
        }
        // a frame to skip, of three bytes
        let skipped = [b"\x50\x2a\x4d\x18\x03\0\0\0abc".to_vec(), zstd("x")].concat();
        assert_eq!(text_of(&[zstd("y"), skipped].concat()).unwrap(), "yx");
    }

    #[test]
    fn what_is_cut_or_damaged_is_an_error() {
        let text = "the quick brown fox jumps over the lazy dog\n".repeat(100);
        for packed in [gzip(&text), zstd(&text)] {
            for keep in [5, packed.len() / 2, packed.len() - 1] {
                assert!(text_of(&packed[..keep]).is_err(), "{keep} of {}", packed.len());
            }
            let mut damaged = packed.clone();
            let at = damaged.len() - 6;
            damaged[at] ^= 1;
            assert!(text_of(&damaged).is_err());
        }
    }
}
