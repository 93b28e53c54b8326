//! `workloads`: the workloads that have rules, and what was accepted and dropped, on this node or on all nodes.

use std::process::ExitCode;

use super::print;
use super::top::{Asked, exit_code, is_up, table};
use crate::config::Tool;

pub fn run(tool: &Tool, as_json: bool) -> Result<ExitCode, String> {
    let asked = Asked::find(tool, true)?;
    let answers = asked.workloads(false)?;
    let output = if as_json {
        asked.json(&answers)?
    } else {
        [asked.about(&answers), vec![String::new()], table(&answers)].concat().join("\n") + "\n"
    };
    print(&output)?;
    Ok(exit_code(is_up(&answers)))
}
