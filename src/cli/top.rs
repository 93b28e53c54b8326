//! `top`: what is being dropped now. Live in a terminal, once elsewhere.

mod text;

use std::io;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::source::Source;
use super::terminal::{Screen, is_live};
use super::{json, print};
use crate::config::{Input, Task, Tool};
use crate::report::WorkloadsAnswer;
use text::Rates;

/// How often to look.
const INTERVAL: Duration = Duration::from_secs(2);

/// Shows it.
pub fn run(tool: Tool) -> Result<ExitCode, String> {
    let Task::Top { json: as_json, once } = tool.task else { return Ok(ExitCode::FAILURE) };
    let is_saved = matches!(tool.input, Input::Files { .. });
    let live = !as_json && !once && !is_saved && is_live();
    let source = Source::find(&tool, !live)?;
    if live {
        return watch(&source).map(|()| ExitCode::SUCCESS);
    }
    let answer = source.workloads()?;
    let output = if as_json { json(&answer)? } else { text::page(&answer, None, &source.about(&answer.status), None).join("\n") + "\n" };
    print(&output)?;
    Ok(ExitCode::SUCCESS)
}

/// Draws again and again until told to stop.
fn watch(source: &Source) -> Result<(), String> {
    // What is logged would stand across the table; what matters of it is in the status.
    log::set_max_level(log::LevelFilter::Off);
    let failed = |error: io::Error| format!("the terminal does not do what it is told: {error}");
    let screen = Screen::open().map_err(failed)?;
    let mut last: Option<(Instant, WorkloadsAnswer)> = None;
    loop {
        let now = Instant::now();
        let lines = match source.workloads() {
            Ok(answer) => {
                let rates = last.as_ref().map(|(then, before)| Rates::new(before, &answer, now - *then));
                let lines = text::page(&answer, rates.as_ref(), &source.about(&answer.status), Some(screen.size()));
                last = Some((now, answer));
                lines
            }
            Err(error) => vec![format!("No numbers at present: {}", super::terminal::safe(&error, 400))],
        };
        screen.draw(&lines).map_err(failed)?;
        if !screen.wait(INTERVAL) {
            return Ok(());
        }
    }
}
