//! Arguments and environment in; runs until told to stop; exit code out.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::ExitCode;

use calico_accountant::config::{self, Command, Task, World};
use calico_accountant::os::privileges;
use calico_accountant::{cli, exporter};

/// Wrong flag or variable; 1 is a failure while running.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let world = World { variable: &|name| std::env::var_os(name), read_file: &read_file };
    let parse = || config::parse(std::env::args_os().skip(1), &world);
    let mut command = parse();
    // What `check` tries, the exporter must be able to do.
    let is_check = matches!(&command, Ok(Command::Tool(tool)) if matches!(tool.task, Task::Check { .. }));
    if is_check || matches!(command, Ok(Command::Run(..))) {
        privileges::at_start();
        // A file that cannot be read any more is to be noticed now, and not when it is renewed.
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

/// Unlike `println!`, does not panic where nobody reads (`--help | head -1`).
fn print(mut to: impl Write, text: &str, code: ExitCode) -> ExitCode {
    let _ = writeln!(to, "{text}");
    code
}

/// Certificates and names are small; a device or a log in their place must not fill the memory.
fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path)?.take(4 << 20).read_to_end(&mut content)?;
    Ok(content)
}
