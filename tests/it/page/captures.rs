//! The page on the tables of other releases, with host endpoints, tiers and groups: every view draws, and shows what the API answers.

use serde_json::Value;

use crate::program::{self, Program};
use crate::support::browser::Browser;
use crate::support::fakes::Fakes;
use crate::support::fixture;
use crate::support::netns::Namespace;

const CAPTURES: [&str; 4] = ["v3.25.2-nft/t2", "v3.28.5-legacy/t2", "v3.29.7-legacy/t2", "v3.32.1-legacy/t2"];

#[test]
fn every_view_draws_on_other_releases() {
    let test = "the page on other releases";
    let Some(net) = Namespace::new(test) else { return };
    net.run(|| every_view_draws(test));
}

fn every_view_draws(test: &str) {
    let Some(browser) = Browser::start(test) else { return };
    for capture in CAPTURES {
        let table = |family: &str| fixture::text(&format!("captures/{capture}/{family}-save.txt.gz"));
        let fakes = Fakes::tables(&table("iptables"), &table("ip6tables"));
        let mut command = program::command();
        command.env("PATH", fakes.path()).env_remove("ETCD_ENDPOINTS").env("DATASTORE_TYPE", "none").env("BACKEND", "nft");
        let program = Program::start(command);
        let url = format!("http://127.0.0.1:{}", program.port());
        browser.open(&format!("{url}/#/workloads"));
        let answer = |path: &str| browser.run_async(&format!("return (await fetch('api/v1/{path}')).json()"));
        let count = |answer: &Value, field: &str| answer[field].as_array().unwrap().len();

        let workloads = answer("workloads");
        browser.until(&format!("document.querySelectorAll('main tbody tr').length === {}", count(&workloads, "workloads")));
        browser.run("location.hash = '#/policies'");
        browser.until(&format!("document.querySelectorAll('main tbody tr').length === {}", count(&answer("policies"), "policies")));
        browser.run("location.hash = '#/drops'");
        browser.until(&format!("document.querySelectorAll('main tbody tr').length === {}", count(&workloads, "drops")));
        for workload in workloads["workloads"].as_array().unwrap() {
            let interface = workload["interface"].as_str().unwrap();
            browser.run(&format!("location.hash = '#/workload/{interface}'"));
            let rows = answer(&format!("workloads/{interface}"))["directions"].as_array().unwrap().iter().map(steps).sum::<usize>();
            browser.until(&format!("document.querySelectorAll('.pipeline tbody tr .what a').length === {rows}"));
        }
        let hosts = answer("host-endpoints");
        assert!(count(&hosts, "host_endpoints") > 0, "{capture} has host endpoints");
        browser.run("location.hash = '#/hosts'");
        let pipelines: usize = hosts["host_endpoints"].as_array().unwrap().iter().map(|host| count(host, "directions")).sum();
        browser.until(&format!("document.querySelectorAll('.direction').length === {pipelines}"));
        browser.check_quiet(&url);
        // Leaves the page before the program ends, because the page would continue to ask it.
        browser.open("about:blank");
        browser.requests();
    }
}

/// How many policies a direction has.
fn steps(direction: &Value) -> usize {
    let targets = direction["tiers"].as_array().unwrap().iter().flat_map(|tier| tier["targets"].as_array().unwrap());
    targets.map(|target| target["policies"].as_array().map_or(1, Vec::len)).sum()
}
