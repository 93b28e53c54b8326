//! Least privilege: what this process, and every program that it starts, gives up for good before it serves anyone. Touches: this
//! thread's own rights, so it comes before other threads, which inherit them.
//!
//! Whoever takes over the process has what is left: two capabilities, no file to write, fewer system calls. Nothing here fails because
//! there is little to give up: the process may be unprivileged already, or the kernel may not know one of the means.

mod calls;
mod capabilities;
mod files;

use std::error::Error;

/// Gives up the capabilities that only starting does not take either: from here on, files are read as they will be read in operation,
/// so that one that cannot be read is noticed now, and not when it is renewed.
pub fn at_start() {
    // What is impossible now is impossible later too, and said then.
    _ = capabilities::keep(&capabilities::START);
}

/// Gives up everything else. `may_write`: whether files may be written, by programs of the administrator's choice.
pub fn for_good(may_write: bool) {
    let mut failed = Vec::new();
    let mut step = |what: &str, result: Result<(), Box<dyn Error>>| {
        if let Err(error) = result {
            failed.push(format!("{what} ({error})"));
        }
    };
    // The next ones are for processes that cannot become more than they are.
    step("never to gain privileges", rustix::thread::set_no_new_privs(true).map_err(Into::into));
    if !may_write {
        step("to leave files alone", files::protect());
    }
    step("to have NET_ADMIN and NET_RAW at most", capabilities::keep(&capabilities::OPERATION).map_err(Into::into));
    step("to do without system calls that reading does not take", calls::deny());
    if !failed.is_empty() {
        log::warn!("this process could not be made {}", failed.join(", nor "));
    }
}
