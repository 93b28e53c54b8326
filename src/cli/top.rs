//! `top`: what is being dropped now. Live in a terminal, once elsewhere.

mod text;

use std::io;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::source::Source;
use super::terminal::{Screen, is_live, safe};
use super::{json, print};
use crate::config::{Input, Tool};
use crate::report::WorkloadsAnswer;
use text::{About, rates};

const INTERVAL: Duration = Duration::from_secs(2);

pub fn run(tool: &Tool, as_json: bool, once: bool) -> Result<ExitCode, String> {
    let is_saved = matches!(tool.input, Input::Files { .. });
    let live = !as_json && !once && !is_saved && is_live();
    let source = Source::find(tool, !live)?;
    if live {
        return watch(&source).map(exit_code);
    }
    let answer = source.workloads()?;
    let output = if as_json { json(&answer)? } else { page(&source, &answer, None, None).join("\n") + "\n" };
    print(&output)?;
    Ok(exit_code(answer.status.up))
}

/// Without counters of now, nothing was shown to be well.
fn exit_code(is_up: bool) -> ExitCode {
    if is_up { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn page(source: &Source, answer: &WorkloadsAnswer, rates: Option<&[f64]>, rows: Option<usize>) -> Vec<String> {
    let about = About { line: &source.about(&answer.status), watched: source.watched(&answer.status) };
    text::page(answer, rates, &about, rows)
}

/// Draws again and again until told to stop; returns whether there were counters of now at the end.
fn watch(source: &Source) -> Result<bool, String> {
    // What is logged would stand across the table; what matters of it is in the status.
    log::set_max_level(log::LevelFilter::Off);
    let failed = |error: io::Error| format!("controlling the terminal failed: {error}");
    let screen = Screen::open().map_err(failed)?;
    let mut last: Option<(Instant, WorkloadsAnswer)> = None;
    let mut is_up;
    loop {
        let now = Instant::now();
        let lines = match source.workloads() {
            Ok(answer) => {
                let rates = last.as_ref().map(|(then, before)| rates(before, &answer, now - *then));
                let lines = page(source, &answer, rates.as_deref(), Some(screen.size().1));
                is_up = answer.status.up;
                last = Some((now, answer));
                lines
            }
            Err(error) => {
                is_up = false;
                vec![format!("No numbers now: {}", safe(&error, 400))]
            }
        };
        screen.draw(&lines).map_err(failed)?;
        if !screen.wait(INTERVAL) {
            return Ok(is_up);
        }
    }
}
