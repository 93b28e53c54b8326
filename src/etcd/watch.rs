//! The stream of a watch: cuts it into JSON objects, and says what each means for the watch. In come bytes; it touches nothing.

use std::io::{self, Read};

use super::error::{Refusal, refusal};
use super::messages::WatchFrame;

/// A frame of the usual thousand events of workload endpoints takes 2 MB. More than this is not kept in memory; listing again,
/// page by page, is cheaper.
pub const LARGEST_FRAME: usize = 32 << 20;
/// How much is asked of the connection at once.
const CHUNK: usize = 64 << 10;

/// The JSON objects of a stream, one after the other. etcd ≥ 3.4 ends each with a newline, etcd ≤ 3.3 with nothing at all, so
/// only the braces tell where one ends.
pub struct Frames<R> {
    stream: R,
    largest: usize,
    buffer: Vec<u8>,
    /// Where the next frame starts in `buffer`.
    start: usize,
    /// Up to where `buffer` has been looked at.
    seen: usize,
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl<R: Read> Frames<R> {
    /// The frames of `stream`, none larger than `largest` bytes.
    pub fn new(stream: R, largest: usize) -> Self {
        Frames { stream, largest, buffer: Vec::new(), start: 0, seen: 0, depth: 0, in_string: false, escaped: false }
    }

    /// The bytes of the next frame; `None` at the end of the stream.
    ///
    /// # Errors
    /// The stream's own, `InvalidData` for what is no object, `FileTooLarge` for an object beyond the limit.
    pub fn next(&mut self) -> io::Result<Option<&[u8]>> {
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

    /// Looks at what has not been looked at yet; returns the end of the frame if it is there.
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
        // One large frame must not be paid for in memory for ever.
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

/// Where a watch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The cluster that was listed.
    pub cluster: u64,
    /// The last revision that is fully known.
    pub revision: i64,
}

/// What a frame means for the watch it came from.
#[derive(Debug, PartialEq, Eq)]
pub enum Meaning {
    /// Go on; the events, if there are any, are to be applied.
    GoOn,
    /// The position is of no use any more.
    Relist(String),
    /// A new token may help.
    Token(String),
    /// The user may not.
    Denied(String),
    /// The stream is over, or will never say anything again.
    Over(String),
}

/// Says what `frame` means, and moves `position` along.
pub fn meaning(frame: &WatchFrame<'_>, position: &mut Position) -> Meaning {
    if let Some(error) = &frame.error {
        return ended(error.text(), error.code());
    }
    let Some(result) = &frame.result else { return Meaning::Over("a frame with neither result nor error".into()) };
    if result.header.cluster_id != 0 && result.header.cluster_id != position.cluster {
        return Meaning::Relist("another cluster answers".into());
    }
    // A cancelled watch says so once, then the stream stays open and silent.
    if result.canceled {
        return match result.compact_revision {
            0 => ended(&result.cancel_reason, 0),
            compacted => Meaning::Relist(format!("changes up to revision {compacted} have been compacted")),
        };
    }
    if result.created {
        // Sent before the history it promises, so its revision is not one that is fully known. But a store that is behind what
        // we have seen was restored from a backup: it would say nothing until it has caught up, and then something else.
        let behind = result.header.revision < position.revision;
        return match behind {
            true => Meaning::Relist(format!("etcd is at revision {}, before {}", result.header.revision, position.revision)),
            false => Meaning::GoOn,
        };
    }
    let known = result.events.iter().map(|event| event.kv.mod_revision).max().unwrap_or(result.header.revision);
    position.revision = position.revision.max(known);
    Meaning::GoOn
}

fn ended(reason: &str, code: u32) -> Meaning {
    match refusal(reason, code, 0) {
        Refusal::Token => Meaning::Token(reason.to_owned()),
        // etcd 3.5.0–3.5.4 say this for a bad token too.
        Refusal::Denied => Meaning::Denied(reason.to_owned()),
        Refusal::Revision => Meaning::Relist(reason.to_owned()),
        _ if reason.is_empty() => Meaning::Over("etcd cancelled the watch".to_owned()),
        _ => Meaning::Over(reason.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives its bytes in pieces of one size.
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
        while let Some(frame) = frames.next().unwrap() {
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
        assert_eq!(frames.next().unwrap(), Some(&b"{}"[..]));
    }

    #[test]
    fn an_end_within_a_frame_is_an_end_and_junk_is_an_error() {
        assert_eq!(frames(r#"{"a":1}{"b":"#, 4), [r#"{"a":1}"#]);
        let mut junk = Frames::new(&b"<html>"[..], 100);
        assert_eq!(junk.next().unwrap_err().kind(), io::ErrorKind::InvalidData);
        let mut junk = Frames::new(&b"}"[..], 100);
        assert_eq!(junk.next().unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_frame_without_end_stops_at_the_limit() {
        let mut frames = Frames::new(io::repeat(b'{'), 1 << 20);
        assert_eq!(frames.next().unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert!(frames.buffer.capacity() <= 4 << 20);
    }

    #[test]
    fn memory_of_a_large_frame_is_given_back() {
        let stream = format!("{{\"a\":\"{}\"}}{{}}", "x".repeat(1 << 20));
        let mut frames = Frames::new(Pieces(stream.as_bytes(), CHUNK), 2 << 20);
        while frames.next().unwrap().is_some() {}
        assert!(frames.buffer.capacity() <= 4 * CHUNK);
    }

    fn said(frame: &str) -> (Meaning, i64) {
        let mut position = Position { cluster: 7, revision: 100 };
        let meaning = meaning(&serde_json::from_str(frame).unwrap(), &mut position);
        (meaning, position.revision)
    }

    #[test]
    fn events_and_progress_move_the_position_but_a_creation_does_not() {
        let created = r#"{"result":{"header":{"cluster_id":"7","revision":"150"},"created":true}}"#;
        assert_eq!(said(created), (Meaning::GoOn, 100));
        let progress = r#"{"result":{"header":{"cluster_id":"7","revision":"150"}}}"#;
        assert_eq!(said(progress), (Meaning::GoOn, 150));
        let events = r#"{"result":{"header":{"cluster_id":"7","revision":"150"},"events":[{"kv":{"key":"YQ==","mod_revision":"101"}},
            {"type":"DELETE","kv":{"key":"YQ==","mod_revision":"102"}}]}}"#;
        assert_eq!(said(events), (Meaning::GoOn, 102));
    }

    #[test]
    fn compaction_another_cluster_and_a_restored_backup_need_a_new_list() {
        for frame in [
            r#"{"result":{"header":{"cluster_id":"7"},"canceled":true,"compact_revision":"120"}}"#,
            r#"{"result":{"header":{"cluster_id":"8","revision":"150"},"created":true}}"#,
            r#"{"result":{"header":{"cluster_id":"7","revision":"99"},"created":true}}"#,
            r#"{"result":{"header":{"cluster_id":"7"},"canceled":true,"cancel_reason":"etcdserver: mvcc: required revision has been compacted"}}"#,
        ] {
            assert!(matches!(said(frame), (Meaning::Relist(_), 100)), "{frame}");
        }
        let level = r#"{"result":{"header":{"cluster_id":"7","revision":"100"},"created":true}}"#;
        assert_eq!(said(level).0, Meaning::GoOn);
    }

    #[test]
    fn cancellations_and_errors_end_the_watch() {
        let token = r#"{"result":{"header":{"cluster_id":"7"},"watch_id":"-1","created":true,"canceled":true,
            "cancel_reason":"rpc error: code = Unauthenticated desc = etcdserver: invalid auth token"}}"#;
        assert!(matches!(said(token).0, Meaning::Token(_)));
        let denied = r#"{"result":{"created":true,"canceled":true,"cancel_reason":"rpc error: code = PermissionDenied desc = etcdserver: permission denied"}}"#;
        assert!(matches!(said(denied).0, Meaning::Denied(_)));
        for frame in [
            r#"{"error":{"grpc_code":14,"http_code":503,"message":"transport is closing","http_status":"Service Unavailable"}}"#,
            r#"{"error":{"code":14, "message":"etcdserver: no leader"}}"#,
            r#"{"result":{"header":{"cluster_id":"7"},"canceled":true}}"#,
            "{}",
        ] {
            assert!(matches!(said(frame).0, Meaning::Over(_)), "{frame}");
        }
    }
}
