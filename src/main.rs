//! Parses arguments and environment, runs until it is told to stop, and returns the exit code.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::ExitCode;

use calico_accountant::config::{self, Command, Task, World};
use calico_accountant::os::privileges;
use calico_accountant::{cli, exporter};

/// A wrong flag or variable. 1 is a failure while running.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let world = World { variable: &|name| std::env::var_os(name), read_file: &read_file };
    let parse = || config::parse(std::env::args_os().skip(1), &world);
    let mut command = parse();
    // `check` tries what the exporter must be able to do, so it needs the same rights.
    let is_check = matches!(&command, Ok(Command::Tool(tool)) if matches!(tool.task, Task::Check { .. }));
    if is_check || matches!(command, Ok(Command::Run(..))) {
        privileges::at_start();
        // A file that is not readable with these rights must be noticed now, and not when it is renewed.
        command = parse();
    }
    match command {
        Ok(Command::Help(text)) => print(io::stdout(), text.trim_end(), ExitCode::SUCCESS),
        Ok(Command::Version(line)) => print(io::stdout(), &line, ExitCode::SUCCESS),
        Ok(Command::Run(config, remarks)) => {
            let Err(failure) = exporter::start::run(*config, &remarks);
            log::error!("{failure}");
            ExitCode::FAILURE
        }
        Ok(Command::Tool(tool)) => cli::run(&tool),
        Err(error) => print(io::stderr(), &format!("calico-accountant: {error}"), ExitCode::from(USAGE)),
    }
}

/// Writes a line. Unlike `println!`, it does not panic if nobody reads (`--help | head -1`).
fn print(mut to: impl Write, text: &str, code: ExitCode) -> ExitCode {
    let _ = writeln!(to, "{text}");
    code
}

/// Reads a file. Certificates and names are small. A device or a log in their place must not fill the memory.
fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path)?.take(4 << 20).read_to_end(&mut content)?;
    Ok(content)
}
