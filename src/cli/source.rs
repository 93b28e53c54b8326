//! The source of a command's numbers.

use std::time::Duration;

use serde::de::DeserializeOwned;

use super::client::{Client, encoded};
use super::scraper;
use super::terminal::time;
use crate::config::{Input, Tool};
use crate::exporter::Scraper;
use crate::report::{FlowsAnswer, HostEndpointsAnswer, PoliciesAnswer, Report, Status, WorkloadAnswer, WorkloadsAnswer};

pub enum Source {
    Exporter(Client),
    Scraper(Box<Scraper>, Origin),
}

/// What a scraper of this process reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The kernel, and why no exporter was asked.
    Kernel(String),
    /// Saved tables of one moment, or of two.
    Moment,
    Moments,
}

impl Source {
    pub fn find(tool: &Tool, one_moment: bool) -> Result<Self, String> {
        match &tool.input {
            Input::Exporter(url) => Client::find(url).map(Source::Exporter),
            Input::Files { before, now } => {
                let scraper = scraper::of_files(tool.config.clone(), before, now)?;
                Ok(Source::Scraper(Box::new(scraper), if before.is_empty() { Origin::Moment } else { Origin::Moments }))
            }
            Input::Cluster(_) => Err("this command asks one node at a time".into()),
            Input::Here => match Client::find(&Client::url_of(&tool.config)) {
                Ok(client) => Ok(Source::Exporter(client)),
                Err(why) => {
                    for problem in &tool.problems {
                        log::warn!("continuing without: {problem}");
                    }
                    Ok(Source::Scraper(Box::new(scraper::of_kernel(tool.config.clone(), one_moment)?), Origin::Kernel(why)))
                }
            },
        }
    }

    /// Returns an answer of the API at `path`, or `answer` of a report. Fails if there are no counts.
    fn ask<T: DeserializeOwned>(&self, path: &str, answer: impl FnOnce(&Report) -> T) -> Result<T, String> {
        let report = match self {
            Source::Exporter(client) => return Ok(client.ask(path)?),
            Source::Scraper(scraper, _) => scraper.report(),
        };
        match &report.status.problem {
            Some(problem) if !report.status.up => Err(format!("the kernel's counters cannot be read: {problem}")),
            _ => Ok(answer(&report)),
        }
    }

    pub fn workloads(&self) -> Result<WorkloadsAnswer, String> {
        self.ask("workloads", Report::workloads)
    }

    pub fn workload(&self, interface: &str) -> Result<WorkloadAnswer, String> {
        let answer = self.ask(&format!("workloads/{}", encoded(interface)), |report| report.workload(interface))?;
        answer.ok_or_else(|| format!("interface {interface:?} is gone"))
    }

    pub fn host_endpoints(&self) -> Result<HostEndpointsAnswer, String> {
        self.ask("host-endpoints", Report::host_endpoints)
    }

    /// Returns the exporter's traced packets of an endpoint, or `None` if no exporter was asked.
    pub fn flows(&self, interface: &str) -> Result<Option<FlowsAnswer>, String> {
        match self {
            Source::Exporter(client) => Ok(Some(client.ask(&flows_of(interface))?)),
            Source::Scraper(..) => Ok(None),
        }
    }

    pub fn policies(&self) -> Result<PoliciesAnswer<'static>, String> {
        self.ask("policies", |report| report.policies().into_owned())
    }

    /// Returns how long the counters have been watched. `None` for saved tables, which only have moments.
    pub fn watched(&self, status: &Status) -> Option<Duration> {
        match self {
            Source::Exporter(_) | Source::Scraper(_, Origin::Kernel(_)) => Some(watched(status)),
            Source::Scraper(_, Origin::Moment | Origin::Moments) => None,
        }
    }

    /// Describes the numbers' source in one line.
    pub fn about(&self, status: &Status) -> String {
        match self {
            Source::Exporter(client) => format!("Counted by the exporter at {} for {}.", client.url, time(watched(status).as_secs())),
            Source::Scraper(_, Origin::Kernel(why)) => {
                format!("Read from the kernel just now ({why}): counts that need two moments are unknown.")
            }
            Source::Scraper(_, Origin::Moment) => "Saved tables of one moment: counts that need two are unknown.".into(),
            Source::Scraper(_, Origin::Moments) => "Differences between two saved moments.".into(),
        }
    }
}

pub fn flows_of(interface: &str) -> String {
    format!("flows?interface={}", encoded(interface))
}

/// Returns the time between the start and the last read.
pub fn watched(status: &Status) -> Duration {
    Duration::try_from_secs_f64(status.time.map_or(0.0, |time| time - status.started)).unwrap_or_default()
}
