//! Extracts the texts from a saved file: unpacks gzip and tar, decodes UTF-16, and removes kubectl's first line. Pure.

use std::borrow::Cow;
use std::io::Read;

use flate2::read::MultiGzDecoder;

use super::LARGEST;

/// Magic numbers of compressed files that are not unpacked here, and the commands to unpack them.
const PACKED: [(&[u8], &str, &str); 5] = [
    (b"\xfd7zXZ\0", "xz", "xz -d"),
    (b"\x28\xb5\x2f\xfd", "zstd", "zstd -d"),
    (b"BZh", "bzip2", "bzip2 -d"),
    (b"\x04\x22\x4d\x18", "lz4", "lz4 -d"),
    (b"PK\x03\x04", "zip", "unzip"),
];

const BLOCK: usize = 512;

/// The content of a file.
pub enum Content<'a> {
    Text(Cow<'a, [u8]>),
    /// The files in a tar: name and content.
    Archive(Vec<(String, Vec<u8>)>),
}

/// Unpacks a file. The members of a tar are not unpacked.
pub fn open(bytes: &[u8]) -> Result<Content<'_>, String> {
    let bytes = unpacked(bytes)?;
    match bytes.get(257..262) {
        Some(b"ustar") => Ok(Content::Archive(members(&bytes)?)),
        _ => Ok(Content::Text(readable(bytes))),
    }
}

fn unpacked(bytes: &[u8]) -> Result<Cow<'_, [u8]>, String> {
    if let Some((_, name, command)) = PACKED.into_iter().find(|(magic, ..)| bytes.starts_with(magic)) {
        return Err(format!("it is packed by {name}; unpack it first: {command}"));
    }
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        return Ok(Cow::Borrowed(bytes));
    }
    let mut unpacked = Vec::new();
    let read = MultiGzDecoder::new(bytes).take(LARGEST + 1).read_to_end(&mut unpacked);
    match read.map_err(|error| format!("cannot be unpacked: {error}"))? as u64 {
        ..=LARGEST => Ok(Cow::Owned(unpacked)),
        _ => Err(format!("it is larger than {} MiB", LARGEST >> 20)),
    }
}

/// Returns the regular files of a tar, in POSIX (`ustar`) or GNU format.
fn members(tar: &[u8]) -> Result<Vec<(String, Vec<u8>)>, String> {
    let text = |field: &[u8]| String::from_utf8_lossy(field.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned();
    let (mut members, mut long_name, mut rest) = (Vec::new(), None, tar);
    loop {
        let (header, behind) = rest.split_at_checked(BLOCK).ok_or("the tar ends before its end")?;
        if header.iter().all(|byte| *byte == 0) {
            return Ok(members);
        }
        let name = long_name.take().unwrap_or_else(|| text(&header[..100]));
        let size = usize::from_str_radix(text(&header[124..136]).trim(), 8).map_err(|_| format!("the tar is damaged at {name}"))?;
        let content = behind.get(..size).ok_or_else(|| format!("the tar ends within {name}"))?;
        match header[156] {
            b'0' | 0 => members.push((name, content.to_vec())),
            // The name of the next file, if it is too long for the file's own header.
            b'L' => long_name = Some(text(content)),
            _ => {}
        }
        rest = behind.get(size.next_multiple_of(BLOCK)..).unwrap_or_default();
    }
}

/// Converts to UTF-8 without a byte order mark, and removes the line in which `kubectl exec` names the container it chose.
fn readable(bytes: Cow<[u8]>) -> Cow<[u8]> {
    let utf_16 = |read: fn([u8; 2]) -> u16| {
        let units = bytes.as_chunks().0.iter().map(|pair| read(*pair));
        char::decode_utf16(units).map(|read| read.unwrap_or(char::REPLACEMENT_CHARACTER)).collect::<String>().into_bytes().into()
    };
    let bytes = match bytes.get(..2) {
        Some([0xff, 0xfe]) => utf_16(u16::from_le_bytes),
        Some([0xfe, 0xff]) => utf_16(u16::from_be_bytes),
        _ => bytes,
    };
    let text = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&bytes);
    let is_kubectls = text.starts_with(b"Defaulted container ") || text.starts_with(b"Defaulting container name ");
    let begin = text.iter().position(|byte| *byte == b'\n').filter(|_| is_kubectls).map_or(0, |end| end + 1);
    match bytes.len() - text.len() + begin {
        0 => bytes,
        begin => bytes[begin..].to_vec().into(),
    }
}
