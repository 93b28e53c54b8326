//! Where a command's numbers come from.

use std::borrow::Cow;
use std::time::Duration;

use super::exporter::Exporter;
use super::own;
use super::top::time;
use crate::config::{Input, Tool};
use crate::exporter::Scraper;
use crate::report::{HostEndpointsAnswer, Status, WorkloadAnswer, WorkloadsAnswer};

/// Where the numbers come from.
pub enum Source {
    /// A running exporter.
    Exporter(Exporter),
    /// A scraper of our own.
    Own(Box<Scraper>, Origin),
}

/// What a scraper of our own reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The kernel; and why no exporter was asked.
    Kernel(String),
    /// Saved tables of one moment.
    Moment,
    /// Saved tables of two moments.
    Moments,
}

impl Source {
    /// What the command line asks for, or what there is.
    ///
    /// # Errors
    /// The exporter that was named does not answer, or files cannot be used.
    pub fn find(tool: &Tool, one_moment: bool) -> Result<Self, String> {
        match &tool.input {
            Input::Exporter(url) => Exporter::find(url).map(Source::Exporter),
            Input::Files { before, now } => {
                let scraper = own::of_files(tool.config.clone(), before, now)?;
                Ok(Source::Own(Box::new(scraper), if before.is_empty() { Origin::Moment } else { Origin::Moments }))
            }
            Input::Here => match Exporter::find(&Exporter::url_of(&tool.config)) {
                Ok(exporter) => Ok(Source::Exporter(exporter)),
                Err(why) => {
                    for problem in &tool.problems {
                        log::warn!("going on without: {problem}");
                    }
                    Ok(Source::Own(Box::new(own::of_kernel(tool.config.clone(), one_moment)?), Origin::Kernel(why)))
                }
            },
        }
    }

    /// All workloads, and what is dropped.
    pub fn workloads(&self) -> Result<WorkloadsAnswer<'static>, String> {
        match self {
            Source::Exporter(exporter) => exporter.workloads(),
            Source::Own(scraper, _) => Ok(readable(scraper)?.workloads().into_owned()),
        }
    }

    /// One workload's pipelines.
    pub fn workload(&self, interface: &str) -> Result<WorkloadAnswer<'static>, String> {
        match self {
            Source::Exporter(exporter) => exporter.workload(interface),
            Source::Own(scraper, _) => {
                let gone = || format!("interface {interface:?} is gone");
                readable(scraper)?.workload(interface).map(WorkloadAnswer::into_owned).ok_or_else(gone)
            }
        }
    }

    /// All host endpoints.
    pub fn host_endpoints(&self) -> Result<HostEndpointsAnswer<'static>, String> {
        match self {
            Source::Exporter(exporter) => exporter.host_endpoints(),
            Source::Own(scraper, _) => Ok(readable(scraper)?.host_endpoints().into_owned()),
        }
    }

    /// How long the counters have been watched; `None` for saved tables, which are of two moments.
    pub fn watched(&self, status: &Status) -> Option<Duration> {
        match self {
            Source::Exporter(_) | Source::Own(_, Origin::Kernel(_)) => Some(watched(status)),
            Source::Own(_, Origin::Moment | Origin::Moments) => None,
        }
    }

    /// What the numbers are, in one line.
    pub fn about(&self, status: &Status) -> Cow<'static, str> {
        match self {
            Source::Exporter(exporter) => format!("Counted by the exporter at {}, since {}.", exporter.url(), since(status)).into(),
            Source::Own(_, Origin::Kernel(why)) => {
                format!("Read from the kernel just now ({why}): what it takes two moments to tell is unknown.").into()
            }
            Source::Own(_, Origin::Moment) => "Saved tables of one moment: what it takes two to tell is unknown.".into(),
            Source::Own(_, Origin::Moments) => "Differences between two saved moments.".into(),
        }
    }
}

/// A report of counts; without them there is nothing to show.
fn readable(scraper: &Scraper) -> Result<std::sync::Arc<crate::report::Report>, String> {
    let report = scraper.report();
    match &report.status.problem {
        Some(problem) if !report.status.up => Err(format!("the kernel's counters cannot be read: {problem}")),
        _ => Ok(report),
    }
}

/// How long an exporter counts already.
fn since(status: &Status) -> String {
    time(watched(status).as_secs())
}

/// Between the start and the last read.
fn watched(status: &Status) -> Duration {
    Duration::try_from_secs_f64(status.time.map_or(0.0, |time| time - status.started)).unwrap_or_default()
}
