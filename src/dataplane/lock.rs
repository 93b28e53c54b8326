//! The xtables lock, taken shared: a commit of a legacy table zeroes all counters for a moment, under this lock. Touches: the lock file,
//! which it never creates or writes.
//!
//! The lock is opened for each read. It counts only if writers would take the same one: a regular file that is still there under its name
//! once it is locked. iptables opens it by name each time (`iptables/xshared.c`), so nobody uses a file that was replaced.

use std::fs::{File, Metadata, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

/// The retry interval while another process holds the lock. iptables-restore polls too, and a commit takes some milliseconds.
const RETRY: Duration = Duration::from_millis(2);

/// Why the lock is not held, in one line for the user.
#[derive(Debug)]
pub enum LockError {
    Missing(String),
    /// The lock cannot be obtained at present.
    Unavailable(String),
}

#[derive(Debug)]
pub struct Lock(File);

impl Lock {
    /// Takes the lock shared. Returns it and the time that it took.
    pub fn shared(path: &Path, wait: Duration) -> Result<(Lock, Duration), LockError> {
        let begun = Instant::now();
        loop {
            let lock = Lock(open(path)?);
            lock.wait(path, begun, wait)?;
            if lock.is_current(path)? {
                return Ok((lock, begun.elapsed()));
            }
            // The file was replaced during the wait. The new one is the lock.
            if begun.elapsed() >= wait {
                return Err(timed_out(path, wait));
            }
        }
    }

    fn wait(&self, path: &Path, begun: Instant, wait: Duration) -> Result<(), LockError> {
        loop {
            match self.0.try_lock_shared() {
                Ok(()) => return Ok(()),
                Err(TryLockError::WouldBlock) if begun.elapsed() < wait => std::thread::sleep(RETRY),
                Err(TryLockError::WouldBlock) => return Err(timed_out(path, wait)),
                Err(TryLockError::Error(error)) => {
                    return Err(LockError::Unavailable(format!("the xtables lock {} cannot be taken: {error}", path.display())));
                }
            }
        }
    }

    /// Reports whether the path still leads to the locked file.
    fn is_current(&self, path: &Path) -> Result<bool, LockError> {
        let failed = |error| not_open(path, &error);
        let (held, named) = (self.0.metadata().map_err(failed)?, path.metadata().map_err(failed)?);
        if (held.dev(), held.ino()) != (named.dev(), named.ino()) {
            return Ok(false);
        }
        // A bind-mounted file stays visible here when it is replaced on the host, but writers lock the new one.
        if held.nlink() == 0 {
            return Err(LockError::Missing(format!(
                "the xtables lock {} was removed or replaced after it was mounted, so writers use another file: restart the pod, or mount \
                 the folder",
                path.display()
            )));
        }
        Ok(true)
    }
}

fn timed_out(path: &Path, wait: Duration) -> LockError {
    LockError::Unavailable(format!("the xtables lock {} was held by another process for {:.1} s", path.display(), wait.as_secs_f64()))
}

/// Usually the file is not mounted.
fn not_open(path: &Path, error: &io::Error) -> LockError {
    LockError::Missing(format!("the xtables lock {} cannot be opened: {error}", path.display()))
}

/// Read access is enough for flock(2) and appropriate for another program's file. O_NONBLOCK: opening a FIFO would wait for a writer.
fn open(path: &Path) -> Result<File, LockError> {
    let failed = |error| not_open(path, &error);
    let refuse = |metadata: &Metadata| match kind(metadata) {
        None => Ok(()),
        Some(kind) => Err(LockError::Missing(format!(
            "the xtables lock {} is {kind}, not a regular file: no writer can lock it (a container runtime creates a directory if the \
             file to mount does not exist)",
            path.display()
        ))),
    };
    // Checked before, because a socket cannot even be opened, and after, because the file may have been replaced.
    refuse(&path.metadata().map_err(failed)?)?;
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path).map_err(failed)?;
    refuse(&file.metadata().map_err(failed)?)?;
    Ok(file)
}

fn kind(metadata: &Metadata) -> Option<&'static str> {
    let kind = metadata.file_type();
    match kind {
        kind if kind.is_file() => None,
        kind if kind.is_dir() => Some("a directory"),
        kind if kind.is_fifo() => Some("a FIFO"),
        kind if kind.is_socket() => Some("a socket"),
        _ => Some("a device"),
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file is not enough while a child that is about to execute has a copy of the descriptor.
        _ = self.0.unlock();
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn file(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("accountant-lock-{}-{name}", std::process::id()));
        File::create(&path).unwrap();
        path
    }

    #[test]
    fn readers_share_it_and_a_writer_shuts_them_out_for_a_bounded_time() {
        let path = file("share");
        let (one, _) = Lock::shared(&path, Duration::ZERO).unwrap();
        let (two, _) = Lock::shared(&path, Duration::ZERO).unwrap();
        drop((one, two));
        let writer = File::open(&path).unwrap();
        writer.lock().unwrap();
        let LockError::Unavailable(error) = Lock::shared(&path, Duration::from_millis(30)).unwrap_err() else { panic!("it is there") };
        assert!(error.contains("was held by another process"), "{error}");
        let release = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            drop(writer);
        });
        let (_lock, waited) = Lock::shared(&path, Duration::from_secs(10)).unwrap();
        assert!(waited >= Duration::from_millis(20));
        release.join().unwrap();
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn only_a_regular_file_is_a_lock() {
        let folder = std::env::temp_dir().join(format!("accountant-odd-locks-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("directory")).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(folder.join("fifo")).status().unwrap().success());
        let _socket = std::os::unix::net::UnixListener::bind(folder.join("socket")).unwrap();
        std::os::unix::fs::symlink("/dev/null", folder.join("device")).unwrap();
        for (name, kind) in [("directory", "directory"), ("fifo", "FIFO"), ("socket", "socket"), ("device", "device")] {
            let (send, receive) = std::sync::mpsc::channel();
            let path = folder.join(name);
            std::thread::spawn(move || send.send(Lock::shared(&path, Duration::from_millis(10)).map(|_| ())));
            let error = receive.recv_timeout(Duration::from_secs(5)).expect(name).unwrap_err();
            assert!(matches!(&error, LockError::Missing(error) if error.contains(&format!(" is a {kind},"))), "{error:?}");
        }
        std::fs::remove_dir_all(folder).unwrap();
    }

    /// A reader that waits for the old file gets the new one.
    #[test]
    fn a_file_that_is_replaced_meanwhile_is_not_the_lock() {
        let path = file("replaced");
        let writer = File::open(&path).unwrap();
        writer.lock().unwrap();
        let replaced = path.clone();
        let replace = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(30));
            std::fs::remove_file(&replaced).unwrap();
            let new = File::create(&replaced).unwrap();
            new.lock().unwrap();
            drop(writer);
            std::thread::sleep(Duration::from_millis(50));
            drop(new);
        });
        let (lock, waited) = Lock::shared(&path, Duration::from_secs(10)).unwrap();
        assert!(waited >= Duration::from_millis(70), "{waited:?}");
        assert_eq!(lock.0.metadata().unwrap().ino(), path.metadata().unwrap().ino());
        replace.join().unwrap();
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_file_that_is_missing_is_named_and_not_made() {
        let path = std::env::temp_dir().join("accountant-no-such-lock");
        let LockError::Missing(error) = Lock::shared(&path, Duration::ZERO).unwrap_err() else { panic!("it is not there") };
        assert!(error.contains("accountant-no-such-lock cannot be opened"), "{error}");
        assert!(!path.exists());
    }
}
