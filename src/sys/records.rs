//! Memory that the kernel fills with records, one after the other: read while it still does so, and given back behind that. An answer of
//! 34 MB takes a few of them at a time then, and is worked through on another CPU.
//!
//! All of it rests on the order of what the kernel writes. Since Linux 4.11, `copy_entries_to_user` (`net/ipv4/netfilter/ip_tables.c`,
//! `net/ipv6/netfilter/ip6_tables.c`) completes one entry before it begins the next. A record whose successor has begun is therefore
//! complete for the thread in the kernel, and after membarrier(2) (Linux 4.14) for every other one, on any processor. Where the kernel
//! has neither, records are taken when all are there.

use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::thread;
use std::time::Duration;

use lazy_static::lazy_static;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};
use rustix::thread::{MembarrierCommand, membarrier};

use super::{HUGE_PAGE, getsockopt_at};

/// Below this many bytes another thread is not worth it.
const LARGE: usize = 4 << 20;
/// Between two looks at what has been written. The kernel writes half a megabyte in that time.
const PAUSE: Duration = Duration::from_millis(1);
/// How much memory is made ready before the kernel comes to it, in bytes.
const AHEAD: usize = 2 * HUGE_PAGE;
/// Records begin at multiples of this, in bytes.
const ALIGNMENT: usize = 8;

lazy_static! {
    /// Whether the order of what the kernel writes can be relied on.
    static ref IS_ORDERED: bool = is_ordered(rustix::system::uname().release().to_str().unwrap_or_default())
        && membarrier(MembarrierCommand::RegisterPrivateExpedited).is_ok();
}

fn is_ordered(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|number| number.parse::<u32>().ok());
    numbers.next().zip(numbers.next()) >= Some((4, 14))
}

/// How records lie in memory.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    /// Where the first one begins.
    pub first: usize,
    /// Where in each one its length is, 16 bits that are never 0.
    pub length: usize,
}

/// Calls getsockopt(2) for an option whose value is `length` bytes, of which it is given the first; hands whole records to `take`, in
/// order and each once, while the kernel writes them.
///
/// # Errors
/// What the kernel answers, as errno. What was taken until then means nothing.
pub fn getsockopt_records(
    socket: BorrowedFd,
    option: (i32, i32),
    (head, length): (&[u8], usize),
    layout: Layout,
    take: &mut (dyn FnMut(&[u8]) + Send),
) -> io::Result<()> {
    let memory = Memory::new(length.max(head.len()))?;
    // SAFETY: the memory is as long as that, and nobody else knows of it yet.
    unsafe { memory.begin.copy_from_nonoverlapping(head.as_ptr(), head.len()) };
    // SAFETY: the memory has that length; until the call returns, `Taker` looks only at what the kernel has completed.
    let fill = || unsafe { getsockopt_at(socket, option, memory.begin, memory.length) }.map(|_| ());
    let taker = Taker { memory: &memory, layout, at: layout.first, prepared: 0, released: 0 };
    take_while(fill, taker, memory.length >= LARGE && *IS_ORDERED, take)
}

/// Fills the memory, and takes what is complete meanwhile, if that is worth a thread; then the rest.
fn take_while(
    fill: impl FnOnce() -> io::Result<()>,
    mut taker: Taker,
    is_watched: bool,
    take: &mut (dyn FnMut(&[u8]) + Send),
) -> io::Result<()> {
    let is_filled = AtomicBool::new(false);
    thread::scope(|scope| {
        let watch = || {
            while !is_filled.load(Ordering::Acquire) {
                taker.prepare();
                taker.complete(take);
                thread::park_timeout(PAUSE);
            }
        };
        // Where no thread can be had, all is taken in the end.
        let watcher = is_watched.then(|| thread::Builder::new().name("entries".into()).spawn_scoped(scope, watch).ok()).flatten();
        let result = fill();
        is_filled.store(true, Ordering::Release);
        watcher.inspect(|watcher| watcher.thread().unpark());
        result
    })?;
    taker.rest(take);
    Ok(())
}

/// Memory of one answer.
struct Memory {
    mapping: Range<*mut u8>,
    begin: *mut u8,
    length: usize,
}

// SAFETY: only `Memory` itself hands out what is inside, see `bytes` and `peek`.
unsafe impl Sync for Memory {}

impl Memory {
    /// Zeros. In huge pages where the kernel has them: in small ones, 34 MB take 8,400 page faults, a tenth of the time in which the kernel
    /// fills them.
    fn new(length: usize) -> io::Result<Self> {
        // Room to begin where a huge page does.
        let room = if length >= HUGE_PAGE { length.next_multiple_of(HUGE_PAGE) + HUGE_PAGE } else { length };
        // SAFETY: a new mapping of no file, at a place that the kernel chooses.
        let mapping = unsafe { mmap_anonymous(std::ptr::null_mut(), room, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE) }?;
        let mut memory = Memory { mapping: mapping.cast()..mapping.wrapping_byte_add(room).cast(), begin: mapping.cast(), length };
        if length >= HUGE_PAGE {
            memory.begin = mapping.map_addr(|address| address.next_multiple_of(HUGE_PAGE)).cast();
            // SAFETY: the range is inside the mapping; the advice changes nothing in what it holds.
            _ = unsafe { madvise(memory.begin.cast(), length.next_multiple_of(HUGE_PAGE), Advice::LinuxHugepage) };
        }
        Ok(memory)
    }

    /// 16 bits at an even place that the kernel may be writing just now: those of before, or of after.
    fn peek(&self, at: usize) -> Option<u16> {
        let is_inside = at.is_multiple_of(2) && at.checked_add(2)? <= self.length;
        // SAFETY: inside, and aligned, for memory begins with a page; an atomic read may meet any write.
        is_inside.then(|| unsafe { AtomicU16::from_ptr(self.begin.add(at).cast()) }.load(Ordering::Relaxed))
    }

    /// # Safety
    /// The range is inside, and nobody writes or releases it as long as the bytes are used.
    unsafe fn bytes(&self, range: Range<usize>) -> &[u8] {
        // SAFETY: as above; bytes have no invalid values.
        unsafe { std::slice::from_raw_parts(self.begin.add(range.start), range.len()) }
    }

    /// Gets the pages of this range, which begins with a huge one.
    fn prepare(&self, range: Range<usize>) {
        // SAFETY: the range is inside; pages that are there stay what they are. Before Linux 5.14 nothing happens.
        _ = unsafe { madvise(self.begin.add(range.start).cast(), range.len(), Advice::LinuxPopulateWrite) };
    }

    /// Gives whole huge pages of this range back.
    fn release(&self, range: Range<usize>) {
        // SAFETY: the range is inside, and begins with a page; the taker looks at nothing that it has released.
        _ = unsafe { madvise(self.begin.add(range.start).cast(), range.len(), Advice::LinuxDontNeed) };
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the whole mapping; nothing borrows from it any more.
        _ = unsafe { munmap(self.mapping.start.cast(), self.mapping.end.addr() - self.mapping.start.addr()) };
    }
}

/// Takes records from memory.
struct Taker<'a> {
    memory: &'a Memory,
    layout: Layout,
    /// What is before this has been taken.
    at: usize,
    /// What is before this has been made ready.
    prepared: usize,
    /// What is before this has been given back.
    released: usize,
}

impl Taker<'_> {
    /// Makes the next pages ready: to clear them takes a twentieth of the time in which the kernel fills them, and is better done here.
    fn prepare(&mut self) {
        let next = self.prepared.max(self.released)..(self.at + AHEAD).next_multiple_of(HUGE_PAGE).min(self.memory.length);
        if !next.is_empty() {
            self.prepared = next.end;
            self.memory.prepare(next);
        }
    }

    /// Takes the records that are complete by now.
    fn complete(&mut self, take: &mut (dyn FnMut(&[u8]) + Send)) {
        let begun = self.reach(self.memory.length);
        if begun == self.at || membarrier(MembarrierCommand::PrivateExpedited).is_err() {
            return;
        }
        // Again, and no further: the last length could have been read when only half of it was there, and led to somewhere between records.
        // What the second walk passes on its way to there is now complete.
        self.take(self.reach(begun), take);
    }

    /// The last record on the way to `limit` that has begun; each one before it has ended.
    fn reach(&self, limit: usize) -> usize {
        let has_begun = |next: &usize| *next <= limit && self.next(*next).is_some();
        std::iter::successors(Some(self.at), |at| self.next(*at).filter(has_begun)).last().unwrap_or(self.at)
    }

    fn next(&self, at: usize) -> Option<usize> {
        let length = usize::from(self.memory.peek(at.checked_add(self.layout.length)?)?);
        (length > 0 && length.is_multiple_of(ALIGNMENT)).then_some(at + length)
    }

    /// Takes everything up to there.
    fn take(&mut self, end: usize, take: &mut (dyn FnMut(&[u8]) + Send)) {
        // SAFETY: `reach` stays inside. Records before `end` are complete, so the kernel is done with them; `release` comes later.
        take(unsafe { self.memory.bytes(self.at..end) });
        self.at = end;
        let pages = self.released..end - end % HUGE_PAGE;
        if !pages.is_empty() {
            self.released = pages.end;
            self.memory.release(pages);
        }
    }

    /// Takes all that is left, when nobody writes any more.
    fn rest(mut self, take: &mut (dyn FnMut(&[u8]) + Send)) {
        if self.at < self.memory.length {
            self.take(self.memory.length, take);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYOUT: Layout = Layout { first: 40, length: 10 };
    const RECORDS: usize = 20_000;

    /// Records of different lengths, as `fill` leaves them in memory behind the head.
    fn records() -> Vec<Vec<u8>> {
        let record = |n: usize| {
            let mut record = vec![(n % 251) as u8; 160 + n % 40 * 8];
            let length = (record.len() as u16).to_ne_bytes();
            record[LAYOUT.length..LAYOUT.length + 2].copy_from_slice(&length);
            record
        };
        (0..RECORDS).map(record).collect()
    }

    /// Writes them as the kernel does: an entry as it has it, then over that what it has counted; then the rest of it.
    fn write(memory: &Memory, records: &[Vec<u8>], pause: impl Fn(usize)) {
        let mut at = LAYOUT.first;
        for (n, record) in records.iter().enumerate() {
            // SAFETY: inside; as the kernel would.
            unsafe {
                let to = memory.begin.add(at);
                to.write_bytes(0xee, LAYOUT.length);
                let length = u16::from_ne_bytes([record[LAYOUT.length], record[LAYOUT.length + 1]]);
                AtomicU16::from_ptr(to.add(LAYOUT.length).cast()).store(length, Ordering::Relaxed);
                pause(n);
                to.copy_from_nonoverlapping(record.as_ptr(), LAYOUT.length);
                let rest = LAYOUT.length + 2;
                to.add(rest).copy_from_nonoverlapping(record.as_ptr().add(rest), record.len() - rest);
            }
            at += record.len();
        }
    }

    fn taken(memory: &Memory, is_watched: bool, fill: impl FnOnce() -> io::Result<()>) -> (io::Result<()>, Vec<Vec<u8>>) {
        let (mut pieces, taker) = (Vec::new(), Taker { memory, layout: LAYOUT, at: LAYOUT.first, prepared: 0, released: 0 });
        let result = take_while(fill, taker, is_watched, &mut |piece| pieces.push(piece.to_vec()));
        (result, pieces)
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no membarrier(2)")]
    fn records_are_taken_while_they_are_written() {
        assert!(*IS_ORDERED, "Linux has membarrier(2) since 4.14");
        let records = records();
        let all = records.concat();
        let memory = Memory::new(LAYOUT.first + all.len()).unwrap();
        let pause = |n: usize| {
            if n.is_multiple_of(500) {
                thread::sleep(2 * PAUSE);
            }
        };
        let (result, pieces) = taken(&memory, true, || {
            write(&memory, &records, pause);
            Ok(())
        });
        result.unwrap();
        assert!(pieces.len() > 10, "{} pieces", pieces.len());
        assert_eq!(pieces.concat(), all);
        // What is given back is zeros when it is read again.
        assert_eq!(memory.peek(LAYOUT.first + LAYOUT.length), Some(0));
        let mut ends = records.iter().scan(0, |end, record| {
            *end += record.len();
            Some(*end)
        });
        let mut end = 0;
        for piece in pieces {
            end += piece.len();
            assert!(ends.any(|whole| whole == end), "{end} is within a record");
        }
    }

    #[test]
    fn unwatched_or_malformed_records_are_taken_in_one_piece() {
        for bytes in [[16, 0], [0, 0], [255, 255], [3, 0]] {
            let memory = Memory::new(4096).unwrap();
            let (result, pieces) = taken(&memory, false, || {
                // SAFETY: inside.
                unsafe { memory.begin.add(LAYOUT.first + LAYOUT.length).copy_from_nonoverlapping(bytes.as_ptr(), 2) };
                Ok(())
            });
            result.unwrap();
            assert_eq!(pieces.iter().map(Vec::len).collect::<Vec<_>>(), [4096 - LAYOUT.first]);
        }
    }

    #[test]
    fn what_fails_is_not_taken() {
        let memory = Memory::new(4096).unwrap();
        let (result, pieces) = taken(&memory, false, || Err(io::ErrorKind::WouldBlock.into()));
        assert_eq!((result.unwrap_err().kind(), pieces.len()), (io::ErrorKind::WouldBlock, 0));
    }

    /// By Miri's stand-in for the kernel.
    #[cfg(miri)]
    #[test]
    fn the_kernel_may_write_all_that_it_is_told_of() {
        let (socket, mut taken) = (std::net::TcpListener::bind("127.0.0.1:0").unwrap(), Vec::new());
        let socket = std::os::fd::AsFd::as_fd(&socket);
        getsockopt_records(socket, (0, 0), (&[1; 8], 4096), LAYOUT, &mut |piece| taken.extend_from_slice(piece)).unwrap();
        assert_eq!(taken, [0x5a; 4096 - LAYOUT.first]);
    }

    #[test]
    fn half_a_length_leads_nowhere() {
        let memory = Memory::new(4096).unwrap();
        let taker = Taker { memory: &memory, layout: LAYOUT, at: LAYOUT.first, prepared: 0, released: 0 };
        // SAFETY: inside.
        let put = |at: usize, length: u16| unsafe { memory.begin.add(at + LAYOUT.length).cast::<u16>().write_unaligned(length) };
        put(40, 64);
        assert_eq!(taker.reach(4096), 40, "the first one has only begun");
        // Of 0x0180, the low byte; and where that leads, something is written that looks like a length.
        put(104, 0x80);
        put(232, 8);
        let begun = taker.reach(4096);
        assert_eq!(begun, 232);
        put(104, 0x180);
        assert_eq!(taker.reach(begun), 104, "only what both walks meet");
    }

    #[test]
    fn kernels_that_keep_the_order() {
        for (release, is) in
            [("4.13.0", false), ("4.14.336-rt", true), ("3.10.0-1160.el7", false), ("6.18.44-fc", true), ("5", false), ("", false)]
        {
            assert_eq!(is_ordered(release), is, "{release}");
        }
    }
}
