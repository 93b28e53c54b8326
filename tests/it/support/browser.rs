//! A real headless Chromium, controlled with chromedriver over WebDriver. Both end when dropped.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine;
use serde_json::{Value, json};
use ureq::Agent;

use super::etcd::{Scratch, free_port};
use super::{can_run, within};

/// How long to wait for something to appear on a page.
const PATIENCE: Duration = Duration::from_secs(40);

pub struct Browser {
    driver: Child,
    agent: Agent,
    base: String,
    session: String,
    _profile: Scratch,
}

/// WebDriver's private characters for keys.
pub mod key {
    pub const ENTER: &str = "\u{e007}";
    pub const ESCAPE: &str = "\u{e00c}";
    pub const DOWN: &str = "\u{e015}";
    pub const HOME: &str = "\u{e011}";
    pub const TAB: &str = "\u{e004}";
}

impl Browser {
    /// Starts a browser in the calling thread's network namespace. Returns `None` with a message if none is installed (an error under CI).
    ///
    /// The test needs its own namespace with all its interfaces up. Whenever an interface is added or removed, by any test, Chromium aborts
    /// its requests (`ERR_NETWORK_CHANGED`).
    pub fn start(test: &str) -> Option<Self> {
        let namespace = |of: &str| std::fs::read_link(format!("/proc/{of}/ns/net")).unwrap();
        assert_ne!(namespace("thread-self"), namespace("self"), "{test}: a browser needs a network namespace of its own");
        let able = ["chromium", "chromedriver"].iter().all(|program| {
            Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
        });
        can_run(test, able, "chromium and chromedriver (Debian: chromium, chromium-driver)").then(Self::launch)
    }

    fn launch() -> Self {
        let port = free_port();
        let mut driver = Command::new("chromedriver");
        driver.arg(format!("--port={port}")).stdout(Stdio::null()).stderr(Stdio::null());
        let config = Agent::config_builder().http_status_as_error(false).timeout_global(Some(Duration::from_secs(90))).proxy(None);
        let profile = Scratch::new();
        let mut browser = Browser {
            driver: driver.spawn().unwrap(),
            agent: config.build().into(),
            base: format!("http://127.0.0.1:{port}"),
            session: String::new(),
            _profile: profile,
        };
        within(PATIENCE, "chromedriver is ready", || {
            browser.agent.get(format!("{}/status", browser.base)).call().is_ok_and(|mut answer| {
                let body: Value = serde_json::from_slice(&answer.body_mut().read_to_vec().unwrap()).unwrap_or_default();
                body["value"]["ready"] == true
            })
        });
        let folder = format!("--user-data-dir={}", browser._profile.path().display());
        let args = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--no-proxy-server",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            "--window-size=1280,900",
            &folder,
        ];
        let capabilities = json!({"browserName": "chrome", "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
            "goog:chromeOptions": {"args": args}});
        let session = browser.ask("POST", "/session", &json!({"capabilities": {"alwaysMatch": capabilities}}));
        browser.session = format!("/session/{}", session["sessionId"].as_str().unwrap());
        // A new window shows the browser's own page, which makes many requests.
        browser.open("about:blank");
        browser.requests();
        browser.console();
        browser
    }

    /// Sends one WebDriver command. Returns its value.
    #[track_caller]
    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let url = format!("{}{path}", self.base);
        let sent = match method {
            "POST" => self.agent.post(url).header("Content-Type", "application/json").send(body.to_string()),
            "DELETE" => self.agent.delete(url).call(),
            _ => self.agent.get(url).call(),
        };
        let mut answer = sent.unwrap();
        // Screenshots of long pages exceed the default limit.
        let bytes = answer.body_mut().with_config().limit(64 << 20).read_to_vec().unwrap();
        let value: Value = serde_json::from_slice(&bytes).unwrap();
        assert!(answer.status().is_success(), "{method} {path}: {value}");
        value["value"].clone()
    }

    #[track_caller]
    fn command(&self, path: &str, body: Value) -> Value {
        self.ask("POST", &format!("{}{path}", self.session), &body)
    }

    #[track_caller]
    pub fn open(&self, url: &str) {
        self.command("/url", json!({ "url": url }));
    }

    /// Runs a function body in the page. Returns its result.
    #[track_caller]
    pub fn run(&self, script: &str) -> Value {
        self.command("/execute/sync", json!({ "script": script, "args": [] }))
    }

    /// Runs an async function body in the page. Returns its awaited result.
    #[track_caller]
    pub fn run_async(&self, script: &str) -> Value {
        let script = format!("const done = arguments[0]; (async () => {{ {script} }})().then(done, (error) => done(String(error)));");
        self.command("/execute/async", json!({ "script": script, "args": [] }))
    }

    /// Waits until an expression is true in the page. Returns its value.
    #[track_caller]
    pub fn until(&self, expression: &str) -> Value {
        let begun = Instant::now();
        loop {
            // Objects in the expression may not exist yet.
            let value = self.run(&format!("try {{ return {expression} }} catch {{ return null }}"));
            if !matches!(value, Value::Null | Value::Bool(false)) {
                return value;
            }
            let text = || self.run("return document.body.innerText.slice(0, 2000)");
            let said = || format!("the page says {}, the console {:#?}", text(), self.console());
            assert!(begun.elapsed() < PATIENCE, "waited in vain for {expression}; {}", said());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Returns the text of the first element of a CSS selector.
    #[track_caller]
    pub fn text(&self, selector: &str) -> String {
        let value = self.run(&format!("return document.querySelector({})?.innerText", json!(selector)));
        value.as_str().unwrap_or_else(|| panic!("no {selector}")).to_owned()
    }

    /// Presses keys, one after the other, at the current focus.
    #[track_caller]
    pub fn press(&self, keys: &str) {
        let actions: Vec<Value> =
            keys.chars().flat_map(|key| [json!({"type": "keyDown", "value": key}), json!({"type": "keyUp", "value": key})]).collect();
        self.command("/actions", json!({"actions": [{"type": "key", "id": "keyboard", "actions": actions}]}));
    }

    /// Clicks the first element of a CSS selector at its position, like a user. Fails if it is covered.
    #[track_caller]
    pub fn click(&self, selector: &str) {
        let found = self.command("/element", json!({"using": "css selector", "value": selector}));
        let id = found.as_object().and_then(|element| element.values().next()).and_then(Value::as_str).unwrap().to_owned();
        self.command(&format!("/element/{id}/click"), json!({}));
    }

    /// Sends a command of Chromium's DevTools.
    #[track_caller]
    pub fn devtools(&self, command: &str, parameters: Value) -> Value {
        self.command("/goog/cdp/execute", json!({"cmd": command, "params": parameters}))
    }

    /// Sets the size of the page. With `phone`, emulates a phone.
    #[track_caller]
    pub fn resize(&self, width: u32, height: u32, phone: bool) {
        let factor = if phone { 2 } else { 1 };
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": factor, "mobile": phone});
        self.devtools("Emulation.setDeviceMetricsOverride", metrics);
    }

    /// Sets whether the system prefers dark colours.
    #[track_caller]
    pub fn prefer_dark(&self, dark: bool) {
        let value = if dark { "dark" } else { "light" };
        let features = json!([{"name": "prefers-color-scheme", "value": value}, {"name": "prefers-reduced-motion", "value": "reduce"}]);
        self.devtools("Emulation.setEmulatedMedia", json!({ "features": features }));
    }

    /// Saves the visible page as a PNG.
    #[track_caller]
    pub fn screenshot(&self, file: &Path) {
        let picture = self.ask("GET", &format!("{}/screenshot", self.session), &Value::Null);
        let bytes = base64::engine::general_purpose::STANDARD.decode(picture.as_str().unwrap()).unwrap();
        std::fs::write(file, bytes).unwrap();
    }

    /// Returns the console's new messages since the last call: errors of scripts, refused and failed requests, and printed text.
    pub fn console(&self) -> Vec<String> {
        let entries = self.command("/se/log", json!({"type": "browser"}));
        entries.as_array().unwrap().iter().map(|entry| format!("{} {}", entry["level"], entry["message"])).collect()
    }

    /// Returns the URLs that the page has requested since the last call.
    pub fn requests(&self) -> Vec<String> {
        let entries = self.command("/se/log", json!({"type": "performance"}));
        let message = |entry: &Value| serde_json::from_str::<Value>(entry["message"].as_str()?).ok();
        let url = |message: Value| {
            let message = &message["message"];
            let is_request = message["method"] == "Network.requestWillBeSent";
            is_request.then(|| message["params"]["request"]["url"].as_str().unwrap().to_owned())
        };
        entries.as_array().unwrap().iter().filter_map(message).filter_map(url).collect()
    }

    /// Checks that since the last call nothing went wrong, and nothing was requested from elsewhere.
    #[track_caller]
    pub fn check_quiet(&self, origin: &str) {
        let console = self.console();
        assert!(console.is_empty(), "the console says {console:#?}");
        let requests = self.requests();
        assert!(!requests.is_empty());
        let elsewhere: Vec<_> = requests.iter().filter(|url| !url.starts_with(origin) && !url.starts_with("data:")).collect();
        assert!(elsewhere.is_empty(), "others are asked: {elsewhere:?}");
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            // Ends Chromium with all of its processes.
            _ = self.agent.delete(format!("{}{}", self.base, self.session)).call();
        }
        _ = self.driver.kill();
        _ = self.driver.wait();
    }
}
