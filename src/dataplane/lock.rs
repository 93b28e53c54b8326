//! The xtables lock, taken shared: a legacy commit zeroes all counters for a moment, under this lock.
//! Touches: the lock file, which it never creates or writes.

use std::fmt;
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often to try, while somebody else holds the lock: iptables-restore polls too, and a commit takes some milliseconds.
const RETRY: Duration = Duration::from_millis(2);

/// Why the lock is not held.
#[derive(Debug)]
pub enum LockError {
    /// The file cannot be opened: it is not mounted, as a rule.
    Open(PathBuf, io::Error),
    /// Somebody held it exclusively all the time.
    TimedOut(PathBuf, Duration),
    /// flock(2) failed.
    Lock(PathBuf, io::Error),
}

impl fmt::Display for LockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LockError::Open(path, error) => write!(f, "the xtables lock {} cannot be opened: {error}", path.display()),
            LockError::TimedOut(path, wait) => {
                write!(f, "the xtables lock {} was held by another process for {:.1} s", path.display(), wait.as_secs_f64())
            }
            LockError::Lock(path, error) => write!(f, "the xtables lock {} cannot be taken: {error}", path.display()),
        }
    }
}

impl std::error::Error for LockError {}

/// The lock, held until this is dropped.
#[derive(Debug)]
pub struct Lock(File);

impl Lock {
    /// Takes the lock shared; returns it with the time that it took.
    pub fn shared(path: &Path, wait: Duration) -> Result<(Lock, Duration), LockError> {
        let begun = Instant::now();
        // Reading is enough for flock(2), and right for a file that belongs to others.
        let file = File::open(path).map_err(|error| LockError::Open(path.to_owned(), error))?;
        loop {
            match file.try_lock_shared() {
                Ok(()) => return Ok((Lock(file), begun.elapsed())),
                Err(TryLockError::WouldBlock) if begun.elapsed() < wait => std::thread::sleep(RETRY),
                Err(TryLockError::WouldBlock) => return Err(LockError::TimedOut(path.to_owned(), wait)),
                Err(TryLockError::Error(error)) => return Err(LockError::Lock(path.to_owned(), error)),
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file would do, were no copy of it left in a child that is about to be executed.
        _ = self.0.unlock();
    }
}

#[cfg(test)]
mod tests {
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
        let error = Lock::shared(&path, Duration::from_millis(30)).unwrap_err();
        assert!(error.to_string().contains("was held by another process"), "{error}");
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
    fn a_file_that_is_missing_is_named_and_not_made() {
        let path = std::env::temp_dir().join("accountant-no-such-lock");
        let error = Lock::shared(&path, Duration::ZERO).unwrap_err();
        assert!(error.to_string().contains("accountant-no-such-lock cannot be opened"), "{error}");
        assert!(!path.exists());
    }
}
