//! Splits the byte stream of a watch into JSON objects. Keeps at most one object in memory.

use std::io::{self, Read};

/// The largest object that is kept in memory. For a larger one, listing again is cheaper. Kubernetes' objects have 1.5 MiB at most, because
/// etcd refuses larger requests. A frame with etcd's usual thousand events of workload endpoints has 2 MB.
pub const LARGEST_FRAME: usize = 8 << 20;
/// The size of one read from the connection.
const CHUNK: usize = 64 << 10;

/// The JSON objects of a stream, one after the other. The Kubernetes API server and etcd ≥ 3.4 end each with a newline, but etcd ≤ 3.3 with
/// nothing, so only the braces show where one ends.
pub struct Frames<R> {
    stream: R,
    largest: usize,
    buffer: Vec<u8>,
    start: usize,
    seen: usize,
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl<R: Read> Frames<R> {
    pub fn new(stream: R, largest: usize) -> Self {
        Frames { stream, largest, buffer: Vec::new(), start: 0, seen: 0, depth: 0, in_string: false, escaped: false }
    }

    /// Returns the next object, or `None` at the end of the stream. `InvalidData` means that it is not an object, `FileTooLarge` that it is
    /// beyond the limit. Other errors are the stream's.
    pub fn next_frame(&mut self) -> io::Result<Option<&[u8]>> {
        loop {
            if let Some(end) = self.end_of_frame()? {
                let start = std::mem::replace(&mut self.start, end);
                return Ok(Some(&self.buffer[start..end]));
            }
            self.drop_used();
            if self.buffer.len() > self.largest {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            if !self.read_more()? {
                return Ok(None);
            }
        }
    }

    /// Scans the new bytes. Returns the end of the frame if it has arrived.
    fn end_of_frame(&mut self) -> io::Result<Option<usize>> {
        while let Some(&byte) = self.buffer.get(self.seen) {
            self.seen += 1;
            if self.in_string {
                self.in_string = self.escaped || byte != b'"';
                self.escaped = !self.escaped && byte == b'\\';
                continue;
            }
            match byte {
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' if self.depth == 1 => {
                    self.depth = 0;
                    return Ok(Some(self.seen));
                }
                b'}' | b']' if self.depth > 1 => self.depth -= 1,
                b'"' if self.depth > 0 => self.in_string = true,
                _ if self.depth > 0 => {}
                byte if byte.is_ascii_whitespace() => self.start = self.seen,
                _ => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
        Ok(None)
    }

    fn drop_used(&mut self) {
        self.buffer.drain(..self.start);
        self.seen -= self.start;
        self.start = 0;
        // One large frame must not occupy memory forever.
        if self.buffer.is_empty() && self.buffer.capacity() > 4 * CHUNK {
            self.buffer = Vec::new();
        }
    }

    fn read_more(&mut self) -> io::Result<bool> {
        let length = self.buffer.len();
        self.buffer.resize(length + CHUNK, 0);
        let result = self.stream.read(&mut self.buffer[length..]);
        self.buffer.truncate(length + *result.as_ref().unwrap_or(&0));
        Ok(result? > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Pieces<'a>(&'a [u8], usize);

    impl Read for Pieces<'_> {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            let n = self.1.min(self.0.len()).min(buf.len());
            buf[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    fn frames(stream: &str, piece: usize) -> Vec<String> {
        let mut frames = Frames::new(Pieces(stream.as_bytes(), piece), 1 << 20);
        let mut all = Vec::new();
        while let Some(frame) = frames.next_frame().unwrap() {
            all.push(String::from_utf8(frame.to_vec()).unwrap());
        }
        all
    }

    #[test]
    fn frames_need_no_delimiter_and_come_in_any_pieces() {
        let expected = [r#"{"a":[{"b":"}{"}]}"#, r#"{"c":"\\"}"#, r#"{"d":"\"}"}"#];
        for delimiter in ["", "\n", "\r\n\n", " "] {
            let stream = expected.map(|frame| format!("{frame}{delimiter}")).concat();
            for piece in [1, 2, 3, 7, 1000] {
                assert_eq!(frames(&stream, piece), expected, "delimiter {delimiter:?}, pieces of {piece}");
            }
        }
    }

    #[test]
    fn a_frame_is_not_waited_for_longer_than_its_last_brace() {
        struct Impatient<'a>(Option<&'a [u8]>);
        impl Read for Impatient<'_> {
            fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
                self.0.take().expect("asked for more than one frame").read(buf)
            }
        }
        let mut frames = Frames::new(Impatient(Some(b"{}")), 100);
        assert_eq!(frames.next_frame().unwrap(), Some(&b"{}"[..]));
    }

    #[test]
    fn an_end_within_a_frame_is_an_end_and_junk_is_an_error() {
        assert_eq!(frames(r#"{"a":1}{"b":"#, 4), [r#"{"a":1}"#]);
        for junk in ["<html>", "}"] {
            assert_eq!(Frames::new(junk.as_bytes(), 100).next_frame().unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
    }

    #[test]
    fn a_frame_without_end_stops_at_the_limit() {
        let mut frames = Frames::new(io::repeat(b'{'), 1 << 20);
        assert_eq!(frames.next_frame().unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert!(frames.buffer.capacity() <= 4 << 20);
    }

    #[test]
    fn memory_of_a_large_frame_is_given_back() {
        let stream = format!("{{\"a\":\"{}\"}}{{}}", "x".repeat(1 << 20));
        let mut frames = Frames::new(Pieces(stream.as_bytes(), CHUNK), 2 << 20);
        while frames.next_frame().unwrap().is_some() {}
        assert!(frames.buffer.capacity() <= 4 * CHUNK);
    }
}
