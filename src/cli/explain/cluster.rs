//! `explain --cluster`: asks the exporters of the pods' nodes.

use std::process::ExitCode;

use super::Explained;
use crate::cli::client::{Failure, encoded};
use crate::cli::cluster::pods::{self, Found, Place};
use crate::cli::cluster::{Answers, Silent, complain};
use crate::cli::source::{flows_of, watched};
use crate::cli::terminal::{LONGEST, safe, time};
use crate::cli::{json, print};
use crate::config::{Nodes, Tool};
use crate::report::WorkloadAnswer;

pub fn run(tool: &Tool, meant: &Nodes, operand: &str, as_json: bool) -> Result<ExitCode, String> {
    let Found { places, mut silent, more } = pods::find(tool, meant, operand)?;
    let (mut answered, mut texts) = (Vec::new(), Vec::new());
    for place in &places {
        match ask(place) {
            Ok(explained) => {
                let (node, watched) = (&place.node, time(watched(&explained.answer.status).as_secs()));
                let about = format!("Counted by the exporter of node {} at {} for {watched}.", safe(&node.name, LONGEST), node.url());
                texts.push(explained.text(&about));
                answered.push((node.name.clone(), explained));
            }
            Err(Failure { text: problem, hint }) => silent.push(Silent { node: place.node.name.clone(), problem, hint }),
        }
    }
    let answers = Answers { answered, silent };
    print(&if as_json { json(&answers.envelope())? } else { texts.join("\n") })?;
    complain(&answers.silent);
    if more > 0 {
        eprintln!("calico-accountant: {more} more pods are not shown: name one");
    }
    Ok(if answers.silent.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn ask(Place { node, interface }: &Place) -> Result<Explained<WorkloadAnswer>, Failure> {
    let answer = node.ask(&format!("workloads/{}", encoded(interface)))?;
    Ok(Explained { answer, witnesses: Some(node.ask(&flows_of(interface))?) })
}
