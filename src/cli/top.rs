//! `top`: what is being dropped now, on this node or on all nodes. Live in a terminal, otherwise printed once.

mod keys;
mod rates;
mod text;

use std::collections::HashSet;
use std::io;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::cluster::{self, Answers, Node};
use super::source::{Source, watched};
use super::terminal::{Screen, is_live, safe, time};
use super::{json, print};
use crate::config::{Input, Tool};
use crate::report::WorkloadsAnswer;
use keys::View;
use rates::Rates;
use text::Shown;

const INTERVAL: Duration = Duration::from_secs(2);
/// Each request makes a node read its kernel.
const CLUSTER_INTERVAL: Duration = Duration::from_secs(5);

/// The exporters that are asked.
pub enum Asked<'a> {
    One(&'a Tool, Box<Source>),
    Cluster(&'a Tool, Vec<Node>),
}

impl<'a> Asked<'a> {
    pub fn find(tool: &'a Tool, one_moment: bool) -> Result<Self, String> {
        match &tool.input {
            Input::Cluster(nodes) => Ok(Asked::Cluster(tool, cluster::exporters(&tool.config, nodes, None)?)),
            _ => Ok(Asked::One(tool, Box::new(Source::find(tool, one_moment)?))),
        }
    }

    /// Returns workloads and drops, of the namespace if one was given. `only_drops`: with many nodes, leaves out workloads without drops.
    pub fn workloads(&self, only_drops: bool) -> Result<Answers<WorkloadsAnswer>, String> {
        let of_namespace = |mut answer: WorkloadsAnswer, tool: &Tool| {
            if let Some(namespace) = &tool.namespace {
                answer.workloads.retain(|workload| *workload.namespace == **namespace);
                answer.drops.retain(|drop| *drop.namespace == **namespace);
            }
            answer
        };
        match self {
            Asked::One(tool, source) => {
                let answer = of_namespace(source.workloads()?, tool);
                Ok(Answers { answered: vec![(String::new(), answer)], silent: vec![] })
            }
            Asked::Cluster(tool, nodes) => Ok(cluster::ask(nodes, "workloads", |answer| {
                let mut answer = of_namespace(answer, tool);
                if only_drops && !answer.drops.is_empty() {
                    let dropping: HashSet<&str> = answer.drops.iter().map(|drop| &*drop.interface).collect();
                    answer.workloads.retain(|workload| dropping.contains(&*workload.interface));
                }
                answer
            })),
        }
    }

    /// Describes the source of the numbers.
    pub fn about(&self, answers: &Answers<WorkloadsAnswer>) -> Vec<String> {
        match (self, &answers.answered[..]) {
            (Asked::One(_, source), [(_, answer), ..]) => vec![source.about(&answer.status)],
            _ => {
                let mut lines = answers.about();
                if let Some(watched) = self.watched(answers) {
                    lines[0] += &format!(" Counted for {} or longer.", time(watched.as_secs()));
                }
                lines
            }
        }
    }

    /// Returns how long all of them have been watched.
    fn watched(&self, answers: &Answers<WorkloadsAnswer>) -> Option<Duration> {
        let status = answers.answered.iter().map(|(_, answer)| &answer.status);
        match self {
            Asked::One(_, source) => status.filter_map(|status| source.watched(status)).min(),
            Asked::Cluster(..) => status.map(watched).min(),
        }
    }

    pub fn json(&self, answers: &Answers<WorkloadsAnswer>) -> Result<String, String> {
        match (self, &answers.answered[..]) {
            (Asked::One(..), [(_, answer)]) => json(answer),
            _ => json(&answers.envelope()),
        }
    }
}

/// Returns only the workloads' table.
pub fn table(answers: &Answers<WorkloadsAnswer>) -> Vec<String> {
    let all: Vec<_> = answers.answered.iter().map(|(node, answer)| (node.clone(), answer)).collect();
    text::workloads(&all, &View::default(), None)
}

pub fn run(tool: &Tool, as_json: bool, once: bool) -> Result<ExitCode, String> {
    let is_saved = matches!(tool.input, Input::Files { .. });
    let live = !as_json && !once && !is_saved && is_live();
    let asked = Asked::find(tool, !live)?;
    if live {
        return watch(&asked).map(exit_code);
    }
    let answers = asked.workloads(!as_json)?;
    print(&if as_json {
        asked.json(&answers)?
    } else {
        text::page(&shown(&asked, &answers, &asked.about(&answers), None)).join("\n") + "\n"
    })?;
    Ok(exit_code(is_up(&answers)))
}

fn shown<'a>(asked: &Asked, answers: &'a Answers<WorkloadsAnswer>, about: &'a [String], rates: Option<&'a Rates>) -> Shown<'a> {
    let is_cluster = matches!(asked, Asked::Cluster(..));
    Shown { about, answers: &answers.answered, is_cluster, watched: asked.watched(answers), rates }
}

/// Reports whether all nodes answered with current counts.
pub fn is_up(answers: &Answers<WorkloadsAnswer>) -> bool {
    answers.silent.is_empty() && answers.answered.iter().all(|(_, answer)| answer.status.up)
}

/// Without current counters, success would be misleading.
pub fn exit_code(is_up: bool) -> ExitCode {
    if is_up { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Redraws until stopped. Returns whether there were current counters at the end.
fn watch(asked: &Asked) -> Result<bool, String> {
    // Log lines would disturb the table. The status contains what is relevant.
    log::set_max_level(log::LevelFilter::Off);
    let failed = |error: io::Error| format!("controlling the terminal failed: {error}");
    let screen = Screen::open().map_err(failed)?;
    let (mut view, mut rates) = (View::default(), Rates::default());
    let interval = if matches!(asked, Asked::Cluster(..)) { CLUSTER_INTERVAL } else { INTERVAL };
    loop {
        let (answers, next) = (asked.workloads(true), Instant::now() + interval);
        if let Ok(answers) = &answers {
            rates.add(Instant::now(), &answers.answered);
        }
        loop {
            let lines = match &answers {
                Ok(answers) => text::screen(&shown(asked, answers, &asked.about(answers), Some(&rates)), &mut view, screen.size()),
                Err(error) => vec![format!("No numbers now: {}", safe(error, 400))],
            };
            screen.draw(&lines).map_err(failed)?;
            let Some(keys) = screen.wait(next.saturating_duration_since(Instant::now())) else {
                return Ok(answers.is_ok_and(|answers| is_up(&answers)));
            };
            let page = screen.size().1.saturating_sub(6).max(1);
            if !keys.into_iter().all(|key| view.press(key, page)) {
                return Ok(answers.is_ok_and(|answers| is_up(&answers)));
            }
            if Instant::now() >= next {
                break;
            }
        }
    }
}
