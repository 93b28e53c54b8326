//! `metrics`: prints the text of `/metrics` for one read, without `process_*`. Writes a temporary file first, so that node_exporter never
//! reads a partial one. With a state, continues the counts of the previous run.

mod state;

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::ExitCode;

use super::{print, scraper};
use crate::config::{Input, Tool};
use state::State;

/// The exit code is 1 if the kernel could not be read. The metrics also say so.
pub fn run(tool: &Tool, output: Option<&Path>, state: Option<&Path>) -> Result<ExitCode, String> {
    let mut state = state.map(State::open).transpose()?;
    let scraper = match (&tool.input, &mut state) {
        (Input::Files { before, now }, _) => scraper::of_files(tool.config.clone(), before, now)?,
        (_, None) => scraper::of_kernel(tool.config.clone(), true)?,
        (_, Some(state)) => {
            let has_tables = state.has_tables();
            scraper::resumed(tool.config.clone(), has_tables, |reader| state.reader(reader))?
        }
    };
    let text = scraper.scrape();
    let up = text.windows(UP.len()).any(|window| window == UP);
    let text = String::from_utf8_lossy(&text);
    // A run that could not read keeps the old state.
    let text = match state.filter(|_| up) {
        Some(state) => state.go_on(&text)?.into(),
        None => text,
    };
    match output {
        // Readable for node_exporter, which runs as another user, whatever the umask. client_golang's WriteToTextfile does the same.
        Some(file) => write(file, text.as_bytes(), 0o644).map_err(|error| format!("writing {} failed: {error}", file.display()))?,
        None => print(&text)?,
    }
    Ok(if up { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

const UP: &[u8] = b"\ncalico_accountant_up 1\n";

fn write(file: &Path, text: &[u8], mode: u32) -> std::io::Result<()> {
    let name = file.file_name().ok_or(std::io::ErrorKind::InvalidInput)?;
    // node_exporter only reads names that end in .prom.
    let beside = file.with_file_name(format!(".{}.{}.tmp", name.to_string_lossy(), std::process::id()));
    let written = fs::File::create_new(&beside).and_then(|mut opened| {
        opened.write_all(text)?;
        opened.set_permissions(fs::Permissions::from_mode(mode))?;
        fs::rename(&beside, file)
    });
    if written.is_err() {
        _ = fs::remove_file(&beside);
    }
    written
}
