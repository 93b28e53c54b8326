//! The page on the demo: Calico's own rules, etcd, and continuous traffic.

use std::time::Duration;

use serde_json::{Value, json};

use super::{begin_with, column, picture};
use crate::program::await_some;
use crate::support::browser::{Browser, key};
use crate::support::demo::Demo;
use crate::support::etcd::Scratch;
use crate::support::netns::Namespace;

#[test]
fn the_demo_with_live_traffic() {
    let test = "the page on the demo";
    let Some(net) = Namespace::new(test) else { return };
    net.run(|| live_traffic(test));
}

fn live_traffic(test: &str) {
    let Some(demo) = Demo::start(test) else { return };
    let Some(browser) = Browser::start(test) else { return };
    let url = &format!("http://{}", demo.address);
    browser.prefer_dark(false);
    browser.open(&format!("{url}/"));

    drops(&browser);
    keyboard(&browser);
    pipeline(&browser);
    workloads(&browser, url);
    policies(&browser);
    search(&browser);
    past(&browser, url);
    export(&browser);
    colours(&browser);
    browser.check_quiet(&format!("{url}/"));
    pause(&browser);
    logic(&browser);
    pictures(&browser, url);
    browser.check_quiet(&format!("{url}/"));
}

/// Drops are shown with their policies, the counts change, and the rows remain the same elements.
fn drops(browser: &Browser) {
    browser.until("document.querySelector('.figure').innerText.endsWith('/s')");
    // There is one more row if packets were in flight to a group during the exporter's first reads.
    browser.until("document.querySelectorAll('main tbody tr.dropping').length >= 6");
    let row =
        "[...document.querySelectorAll('main tbody tr')].find((row) => row.querySelector('.c-by').innerText.startsWith('shop/web-deny'))";
    browser.until(&format!("{row} !== undefined"));
    let text = browser.run(&format!("return {row}.innerText")).as_str().unwrap().to_owned();
    assert!(text.contains("shop/web-1") && text.contains("Denied by policy") && text.contains("Ingress"), "{text}");
    browser.run(&format!("window.kept = {row}"));
    let total = || browser.run("return Number(window.kept.querySelector('.total').innerText.replace(',', ''))").as_f64().unwrap();
    let before = total();
    assert!(before > 0.0 && before % 6.0 == 0.0, "{before}: the demo sends six at a time");
    await_some(|| (total() >= before + 12.0).then_some(()), || format!("more than {before}"));
    assert_eq!(browser.run("return window.kept.isConnected"), true, "rows are changed in place");
    assert!(browser.run("return document.title").as_str().unwrap().contains("dropped) Dropped now · node1"));
}

/// `/` focuses the search, arrows move through the rows, Enter opens a workload's pipeline, and back returns.
fn keyboard(browser: &Browser) {
    browser.press("/db-0");
    browser.until("location.hash.includes('q=db-0')");
    begin_with(&column(browser, "workload"), &["shop/db-0", "shop/db-0", "shop/db-0"]);
    browser.press(key::ESCAPE);
    browser.until("document.querySelectorAll('main tbody tr').length >= 6");
    browser.press("/");
    browser.press(key::DOWN);
    let focused = || browser.run("return document.activeElement.closest('tr')?.rowIndex").as_i64();
    assert_eq!(focused(), Some(1));
    browser.press(key::DOWN);
    assert_eq!(focused(), Some(2));
    assert_eq!(browser.run("return document.querySelectorAll('main tbody th a[tabindex=\"0\"]').length"), 1, "one tab stop");
    browser.press(key::ENTER);
    browser.until("location.hash.startsWith('#/workload/cali')");
    browser.until("document.activeElement.tagName === 'H1'");
    browser.run("history.back()");
    browser.until("location.hash.startsWith('#/drops') || location.hash === ''");
    browser.run("document.activeElement.blur(); scrollTo(0, 0)");
    browser.press(key::TAB);
    browser.press(key::ENTER);
    browser.run("return document.activeElement.id");
}

/// The pipeline shows the policies in order, and the one that denies.
fn pipeline(browser: &Browser) {
    browser.run("location.hash = '#/workload/cali751425ce827'");
    browser.until("document.querySelector('.direction tr[data-dropping]') !== null");
    assert_eq!(browser.text("h1"), "shop/web-1");
    let rows = browser
        .run("return [...document.querySelectorAll('.direction:first-child tbody tr')].map((row) => row.innerText.replace(/\\s+/g, ' '))");
    let rows: Vec<&str> = rows.as_array().unwrap().iter().map(|row| row.as_str().unwrap()).collect();
    let expected = [
        "Before any policy",
        "Invalid",
        "Tier default",
        "Group of 2 policies",
        "1 shop/web-allow",
        "2 shop/web-deny",
        "Group of 2 policies",
        "3 shop/allow-client",
        "4 shop/allow-metrics",
        "5 cluster-baseline",
        "No policy matched",
        "Profiles",
        "kns.shop",
        "ksa.shop.default",
        "No profile matched",
    ];
    // Packets may have been in flight to the group during the exporter's first reads.
    let rows = rows.iter().map(|row| row.trim().to_owned()).filter(|row| !row.starts_with("One of the group"));
    begin_with(&rows.collect::<Vec<_>>(), &expected);
    let denied = "[...document.querySelectorAll('.direction:first-child tr')].find((row) => row.innerText.includes('shop/web-deny'))";
    browser.until(&format!("{denied}.hasAttribute('data-dropping') && {denied}.querySelector('.deny .total').innerText.endsWith('/s')"));
    let cells = browser.run(&format!("return [...{denied}.querySelectorAll('td')].map((cell) => cell.className)"));
    assert_eq!(cells, serde_json::json!(["numeric accept zero", "numeric deny counted", "numeric pass impossible"]));
    let ends = browser.text(".direction:first-child .legend");
    for end in ["accepted by policy", "denied by policy", "no policy matched"] {
        assert!(ends.contains(end), "{ends}");
    }
}

/// The URL contains the search and the order. A click on a header sorts, and the header shows it.
fn workloads(browser: &Browser, url: &str) {
    browser.open(&format!("{url}/?again#/workloads?q=shop&sort=-workload"));
    browser.until("document.querySelectorAll('main tbody tr').length === 2");
    begin_with(&column(browser, "workload"), &["shop/web-1", "shop/db-0"]);
    assert_eq!(browser.run("return document.getElementById('search').value"), "shop");
    // By default, the workloads with most drops come first.
    browser.run("location.hash = '#/workloads'");
    browser.until("document.querySelectorAll('tr.dropping').length === 2");
    begin_with(&column(browser, "workload"), &["shop/web-1", "shop/db-0", "infra/client-0"]);
    browser.run("location.hash = '#/workloads'");
    browser.until("document.querySelectorAll('main tbody tr').length === 3");
    browser.click("th.c-ingress-dropped button");
    let sorted = || browser.run("return document.querySelector('[aria-sort]').className + document.querySelector('[aria-sort]').ariaSort");
    assert_eq!(sorted(), "c-ingress-dropped numericdescending");
    browser.until(
        "document.querySelectorAll('tr.dropping').length === 2 && document.querySelector('main tbody tr').innerText.includes('web-1')",
    );
    begin_with(&column(browser, "workload"), &["shop/web-1", "shop/db-0", "infra/client-0"]);
    browser.click("th.c-ingress-dropped button");
    assert_eq!(sorted(), "c-ingress-dropped numericascending");
    assert_eq!(browser.run("return location.hash"), "#/workloads?sort=ingress-dropped");
    browser.until("document.querySelector('tr.dropping .spark .down').getAttribute('d').length > 20");
}

/// The list of policies shows their users, and which was never hit. The view of one policy shows what it did for each workload, and how
/// often its rules are hit.
fn policies(browser: &Browser) {
    browser.run("location.hash = '#/policies?show=unhit'");
    browser.until("document.querySelectorAll('main tbody tr').length === 1");
    begin_with(&column(browser, "policy"), &["shop/allow-metrics"]);
    begin_with(&column(browser, "users"), &["1 workload"]);
    browser.click("main tbody a");
    browser.until("document.querySelectorAll('.halves tbody tr').length > 2");
    begin_with(&column(browser, "workload"), &["shop/web-1"]);
    browser.until("[...document.querySelectorAll('tbody .c-packets .rate')].every((rate) => rate.innerText === '0')");
    let facts = browser.text(".facts");
    assert!(facts.contains("never, since Felix wrote its rules (watched since "), "{facts}");

    browser.run("location.hash = '#/policy/shop%2Fdefault.web-deny'");
    browser.until("document.querySelector('.halves tr.dropping .c-deny')?.innerText.includes('/s')");
    begin_with(&column(browser, "direction")[..1], &["Ingress"]);
    let text = "return Number(document.querySelector('.halves tr.dropping .c-deny .total').innerText.replace(/[≥ ,]/g, ''))";
    let answer = browser.run_async("return (await fetch('api/v1/policies/shop%2Fdefault.web-deny')).json()");
    let of_web = answer["endpoints"].as_array().unwrap().iter().find(|endpoint| endpoint["direction"] == "ingress").unwrap();
    assert!(of_web["pod"] == "web-1" && of_web["deny"].as_f64().unwrap() >= browser.run(text).as_f64().unwrap(), "{of_web}");
    browser.until("[...document.querySelectorAll('.halves .c-packets .rate')].some((rate) => rate.innerText.endsWith('/s'))");
    assert_eq!(browser.run_async("return (await fetch('api/v1/policies/nobody')).status"), 404);
    // The answer for an unknown name is 404, which the console logs.
    assert!(browser.console().iter().all(|line| line.contains("404")));
}

/// A field narrows the search, `-` excludes, and an address matches as a whole. The end of a tier links to what ended there.
fn search(browser: &Browser) {
    let shown = |view: &str, query: &str, expected: &[&str]| {
        browser.run(&format!("location.hash = '#/{view}?sort=workload&q={query}'"));
        let names = "[...new Set([...document.querySelectorAll('main tbody th a')].map((link) => link.innerText))].join()";
        browser.until(&format!("document.getElementById('search').value !== '' && {names} === '{}'", expected.join(",")));
    };
    shown("workloads", "shop%2Fweb-1", &["shop/web-1"]);
    shown("workloads", "10.65.0.11", &["shop/web-1"]);
    shown("workloads", "fd00:65:0::13", &["shop/db-0"]);
    shown("workloads", "10.65.0.1", &[]);
    shown("workloads", "-ns:shop", &["infra/client-0"]);
    shown("workloads", "policy:web-deny", &["shop/web-1"]);
    shown("workloads", "verdict:deny -web", &["shop/db-0"]);
    shown("drops", "reason:policy policy:web-deny -verdict:accept", &["shop/web-1"]);
    browser.run("location.hash = '#/drops'");
    browser.until("document.querySelectorAll('main tbody tr').length >= 6");
    let link =
        browser.run("return [...document.querySelectorAll('.c-by a')].find((link) => link.innerText === 'end of tier default').hash");
    browser.run(&format!("location.hash = {link}"));
    browser.until("document.querySelectorAll('main tbody tr').length === 2");
    assert!(column(browser, "reason").iter().all(|reason| reason == "No policy matched"));
    assert_eq!(browser.run("return document.getElementById('search').value"), "reason:no_policy tier:default");
}

/// The rows can be saved as they are sorted and filtered.
fn export(browser: &Browser) {
    let scratch = Scratch::new();
    browser.devtools("Browser.setDownloadBehavior", json!({"behavior": "allow", "downloadPath": scratch.path()}));
    browser.run("location.hash = '#/drops?q=reason:policy%20policy:web-deny%20policy:shop'");
    browser.until("document.querySelectorAll('main tbody tr').length >= 1 && document.getElementById('search').value !== ''");
    let saved = |button: usize, extension: &str| {
        browser.click(&format!(".export button:nth-child({button})"));
        let file = || {
            let files = std::fs::read_dir(scratch.path()).unwrap().map(|entry| entry.unwrap().path());
            files
                .filter(|path| path.extension().is_some_and(|found| found == extension))
                .find_map(|path| std::fs::read_to_string(path).ok())
        };
        await_some(|| file().filter(|text| text.ends_with('\n')), || format!("a file .{extension}"))
    };
    let csv = saved(1, "csv");
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(lines[0], "namespace,pod,interface,direction,reason,tier,policy,packets,packets_per_second");
    assert!(lines[1..].iter().all(|line| line.starts_with("shop,web-1,cali751425ce827,ingress,policy,default,")), "{csv}");
    let rows: Value = serde_json::from_str(&saved(2, "json")).unwrap();
    assert_eq!(rows.as_array().unwrap().len(), lines.len() - 1);
    let row = rows.as_array().unwrap().iter().find(|row| row["policy"] == "shop/default.web-deny").unwrap();
    assert!(row["packets"].as_u64() > Some(0) && row["packets_per_second"].as_f64() > Some(0.0), "{row}");
}

/// A newly opened page knows earlier drops, and shows the time that its URL names.
fn past(browser: &Browser, url: &str) {
    let times = "return (await fetch('api/v1/drops')).json()";
    let answer = browser.run_async(times);
    let reads = answer["reads"].as_array().unwrap();
    let (first, last) = (reads[0]["from"].as_f64().unwrap(), reads[reads.len() - 1]["to"].as_f64().unwrap());
    assert!(last - first > 20.0, "{answer}");
    let at = browser.run(&format!("return new Date({} * 1000).toISOString().slice(0, 19) + 'Z'", last.floor()));
    browser.open(&format!("{url}/?past#/drops?at={}", at.as_str().unwrap()));
    browser
        .until("document.querySelector('h1').innerText.startsWith('Dropped at ') && document.querySelectorAll('tr.dropping').length >= 6");
    assert!(browser.text(".figure").ends_with("/s") && browser.text(".sentence").contains("were being dropped"));
    // The page knows reads from before its own first one.
    let known = browser.run("return Number(document.querySelector('.chart input').min)").as_f64().unwrap();
    assert!((known - first).abs() < 1.0, "{known} is not {first}");
    // The slider's keys choose another time. Its end is the present.
    browser.run("document.querySelector('.chart input').focus()");
    browser.press(key::HOME);
    browser.until("document.querySelector('.figure').innerText === 'Not known'");
    browser.click(".chart button");
    browser.until("document.querySelector('h1').innerText === 'Dropped now' && !location.hash.includes('at=')");
}

/// The colours follow the system until others are chosen. The choice is kept.
fn colours(browser: &Browser) {
    let theme = || browser.run("return document.documentElement.dataset.theme").as_str().unwrap().to_owned();
    assert_eq!(theme(), "light");
    browser.prefer_dark(true);
    browser.until("document.documentElement.dataset.theme === 'dark'");
    browser.click("#theme");
    assert_eq!(theme(), "light");
    browser.run("location.reload()");
    browser.until("document.documentElement.dataset.choice === 'light' && document.querySelector('main section') !== null");
    browser.click("#theme");
    browser.click("#theme");
    assert_eq!(theme(), "dark", "as the system again");
    browser.prefer_dark(false);
}

/// A paused page sends no requests.
fn pause(browser: &Browser) {
    browser.click("#live");
    assert_eq!(browser.text("#live"), "Paused");
    std::thread::sleep(Duration::from_millis(300));
    browser.requests();
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(browser.requests(), Vec::<String>::new());
    browser.click("#live");
    browser.until("document.getElementById('live').innerText === 'Live'");
}

/// The page's arithmetic, in the browser for which it is written.
fn logic(browser: &Browser) {
    assert_eq!(browser.run_async(include_str!("logic.js")), serde_json::json!([]));
}

fn pictures(browser: &Browser, url: &str) {
    if std::env::var_os("UPDATE_SCREENSHOTS").is_none() {
        return;
    }
    // Lets a history collect for the pictures.
    browser.open(&format!("{url}/?pictures#/drops"));
    std::thread::sleep(Duration::from_secs(100));
    browser.resize(1280, 800, false);
    picture(browser, "dropped-light");
    browser.prefer_dark(true);
    browser.run("location.hash = '#/workloads'");
    browser.until("document.querySelector('tr.dropping') !== null");
    picture(browser, "workloads-dark");
    browser.run("location.hash = '#/workload/cali751425ce827'");
    browser.until("document.querySelector('tr[data-dropping]') !== null");
    browser.resize(1280, 1000, false);
    std::thread::sleep(Duration::from_secs(12));
    picture(browser, "pipeline-dark");
    browser.prefer_dark(false);
    picture(browser, "pipeline-light");
    browser.run("location.hash = '#/policy/shop%2Fdefault.web-deny'");
    browser.until("document.querySelector('.halves tr.dropping') !== null");
    std::thread::sleep(Duration::from_secs(6));
    browser.resize(1280, 800, false);
    picture(browser, "policy-light");
    browser.run("location.hash = '#/workload/cali751425ce827'");
    browser.until("document.querySelector('tr[data-dropping]') !== null");
    browser.resize(390, 844, true);
    picture(browser, "pipeline-phone");
    browser.run("location.hash = '#/drops'");
    browser.until("document.querySelector('tr.dropping') !== null");
    picture(browser, "dropped-phone");
    browser.resize(1280, 900, false);
}
