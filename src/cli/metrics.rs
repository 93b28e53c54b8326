//! `metrics`: one read, the text of `/metrics` without `process_*`. To a file beside its place first, so that node_exporter never reads
//! half of it.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::ExitCode;

use super::{print, scraper};
use crate::config::{Input, Tool};

/// The exit code is 1 if the kernel could not be read: the metrics say so too.
pub fn run(tool: &Tool, output: Option<&Path>) -> Result<ExitCode, String> {
    let scraper = match &tool.input {
        Input::Files { before, now } => scraper::of_files(tool.config.clone(), before, now)?,
        Input::Here | Input::Exporter(_) | Input::Cluster(_) => scraper::of_kernel(tool.config.clone(), true)?,
    };
    let text = scraper.scrape();
    match output {
        Some(file) => write(file, &text).map_err(|error| format!("writing {} failed: {error}", file.display()))?,
        None => print(&String::from_utf8_lossy(&text))?,
    }
    let up = text.windows(UP.len()).any(|window| window == UP);
    Ok(if up { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

const UP: &[u8] = b"\ncalico_accountant_up 1\n";

fn write(file: &Path, text: &[u8]) -> std::io::Result<()> {
    let name = file.file_name().ok_or(std::io::ErrorKind::InvalidInput)?;
    // node_exporter reads what ends in .prom.
    let beside = file.with_file_name(format!(".{}.{}.tmp", name.to_string_lossy(), std::process::id()));
    let written = fs::File::create_new(&beside).and_then(|mut opened| {
        opened.write_all(text)?;
        // node_exporter runs as another user: as client_golang's WriteToTextfile, whatever the umask.
        opened.set_permissions(fs::Permissions::from_mode(0o644))?;
        fs::rename(&beside, file)
    });
    if written.is_err() {
        _ = fs::remove_file(&beside);
    }
    written
}
