//! A connection's bytes, each read and write bounded by a point in time. Touches: the socket.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

/// How much is handed to the kernel at once.
const PIECE: usize = 256 << 10;
/// How long, and for how many bytes, a client is listened to that is still sending what nobody wants to know.
const FAREWELL: (Duration, usize) = (Duration::from_secs(1), 1 << 20);

/// Reads what there is, at the latest at `deadline`; 0 is the end.
pub(super) fn read(mut socket: &TcpStream, buffer: &mut [u8], deadline: Instant) -> io::Result<usize> {
    loop {
        socket.set_read_timeout(Some(left(deadline)?))?;
        match socket.read(buffer) {
            Err(error) if [ErrorKind::Interrupted, ErrorKind::WouldBlock].contains(&error.kind()) => {}
            result => return result,
        }
    }
}

/// Writes all of it by `deadline`.
pub(super) fn write(mut socket: &TcpStream, mut bytes: &[u8], deadline: Instant) -> io::Result<()> {
    while !bytes.is_empty() {
        // The timeout holds for the whole call, however often the reader takes a little.
        socket.set_write_timeout(Some(left(deadline)?))?;
        match socket.write(&bytes[..bytes.len().min(PIECE)]) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if [ErrorKind::Interrupted, ErrorKind::WouldBlock].contains(&error.kind()) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn left(deadline: Instant) -> io::Result<Duration> {
    deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()).ok_or_else(|| ErrorKind::TimedOut.into())
}

/// Says that nothing more will come, and listens on for a moment: closing a socket with unread bytes in it is a reset, which may
/// overtake the answer.
pub(super) fn farewell(socket: &TcpStream) -> io::Result<()> {
    socket.shutdown(Shutdown::Write)?;
    let (time, mut bytes) = FAREWELL;
    let (deadline, mut buffer) = (Instant::now() + time, [0; 4096]);
    while bytes > 0 {
        match read(socket, &mut buffer, deadline)? {
            0 => break,
            read => bytes = bytes.saturating_sub(read),
        }
    }
    Ok(())
}
