//! A real browser: Debian's chromium, driven by its own driver over WebDriver (plain HTTP, spoken by curl).

use std::{os::unix::fs::MetadataExt, path::Path, process::Command};

use layercake_lab::{Program, eventually_or};
use serde_json::{Value, json};

use super::{SOON, curl_by};

/// A browser with one window. Ended on drop, with its driver.
pub struct Browser<'a> {
    /// Makes a command run where the browser is.
    command: Box<dyn Fn(&str) -> Command + 'a>,
    session: String,
    _driver: Program,
    _folder: tempfile::TempDir,
}

impl<'a> Browser<'a> {
    /// Starts one by commands that `command` makes, on a host of a lab say. `None`, with a word, where no
    /// chromium is installed.
    ///
    /// # Panics
    /// When it is installed and does not start, and where it is missing in a root user's CI run.
    pub fn start(command: impl Fn(&str) -> Command + 'a) -> Option<Self> {
        let find = |program| {
            let path = std::env::var("PATH").unwrap_or_default();
            let mut places = std::env::split_paths(&path).map(|folder| folder.join(program));
            places.find(|place| place.is_file())
        };
        let (Some(_), Some(chromium)) = (find("chromedriver"), find("chromium")) else {
            let in_ci = std::env::var_os("CI").is_some_and(|value| value == "true");
            let is_root = std::fs::metadata("/proc/self").is_ok_and(|of| of.uid() == 0);
            assert!(!(in_ci && is_root), "chromium and its driver must be there in CI");
            println!("SKIPPED: install chromium and chromium-driver, or run `cargo xtask setup`");
            return None;
        };
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut start = command("chromedriver");
        let driver = Program::start(start.arg("--port=0").env("HOME", folder.path()));
        let started = "started successfully on port ";
        let (_, line) = driver.wait_line(|line| line.contains(started), SOON);
        let port = line.split(started).nth(1).expect("a port").trim_end_matches('.').to_owned();
        let mut browser = Self {
            command: Box::new(command),
            session: format!("http://127.0.0.1:{port}/session"),
            _driver: driver,
            _folder: folder,
        };
        let profile =
            format!("--user-data-dir={}", browser._folder.path().join("profile").display());
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--hide-scrollbars",
            &profile,
        ];
        let wanted = json!({
            "browserName": "chrome",
            "goog:chromeOptions": {"args": arguments, "binary": chromium},
            "goog:loggingPrefs": {"browser": "ALL"},
        });
        let answer = browser.ask("", &json!({"capabilities": {"alwaysMatch": wanted}}));
        let id = answer["sessionId"].as_str().expect("a session").to_owned();
        browser.session = format!("{}/{id}", browser.session);
        Some(browser)
    }

    /// One WebDriver command, by POST.
    fn ask(&self, path: &str, body: &Value) -> Value {
        self.answer(path, &["-H", "content-type: application/json", "-d", &body.to_string()])
    }

    fn answer(&self, path: &str, arguments: &[&str]) -> Value {
        let url = format!("{}{path}", self.session);
        let (status, text) = curl_by((self.command)("curl"), &[arguments, &[&url]].concat());
        assert_eq!(status, 200, "{path}: {text}");
        let mut answer: Value = serde_json::from_str(&text).expect(&text);
        answer["value"].take()
    }

    pub fn go(&self, url: &str) {
        self.ask("/url", &json!({"url": url}));
    }

    /// What a piece of script returns.
    pub fn run(&self, script: &str) -> Value {
        self.ask("/execute/sync", &json!({"script": script, "args": []}))
    }

    /// Waits until a script returns something that is true, and returns it.
    pub fn wait(&self, what: &str, script: &str) -> Value {
        let said = || (self.run("return document.body.innerText"), self.complaints());
        eventually_or(
            SOON,
            || format!("{what}; {:?}", said()),
            || {
                let found = self.run(script);
                (found != Value::Null && found != false && found != 0).then_some(found)
            },
        )
    }

    /// A command of Chrome's own protocol.
    pub fn chrome(&self, command: &str, parameters: &Value) -> Value {
        self.ask("/goog/cdp/execute", &json!({"cmd": command, "params": parameters}))
    }

    /// A window of that size, which scrolls and is touched as a phone's where `phone` says so.
    pub fn size(&self, width: u32, height: u32, phone: bool) {
        let scale = if phone { 2 } else { 1 };
        let size =
            json!({"width": width, "height": height, "deviceScaleFactor": scale, "mobile": phone});
        self.chrome("Emulation.setDeviceMetricsOverride", &size);
    }

    /// What the person likes: `light` or `dark`.
    pub fn prefers(&self, colours: &str) {
        let feature = json!({"name": "prefers-color-scheme", "value": colours});
        self.chrome("Emulation.setEmulatedMedia", &json!({"features": [feature]}));
    }

    /// Whether anything sticks out to the right of the window.
    pub fn overflows(&self) -> bool {
        let script = "const d = document.documentElement; return d.scrollWidth - d.clientWidth";
        self.run(script).as_i64().is_none_or(|beyond| beyond > 0)
    }

    /// Keeps a picture of the whole page.
    pub fn picture(&self, file: &Path, whole: bool) {
        let shot = self.chrome("Page.captureScreenshot", &json!({"captureBeyondViewport": whole}));
        let data = shot["data"].as_str().expect("a picture");
        let bytes = decode(data);
        assert!(bytes.starts_with(b"\x89PNG"), "a picture");
        std::fs::write(file, bytes).expect("a folder for pictures");
    }

    /// What the page has complained about since it was asked last.
    pub fn complaints(&self) -> Vec<String> {
        let log = self.ask("/se/log", &json!({"type": "browser"}));
        let bad = |entry: &&Value| entry["level"] == "SEVERE" || entry["level"] == "WARNING";
        let entries = log.as_array().expect("a log").iter().filter(bad);
        entries.map(|entry| entry["message"].as_str().unwrap_or_default().to_owned()).collect()
    }
}

impl Drop for Browser<'_> {
    fn drop(&mut self) {
        // Answered when chromium has ended; the driver is ended with its process group.
        let mut command = (self.command)("curl");
        command.args(["-s", "--max-time", "5", "-X", "DELETE", &self.session]);
        let _ = command.output();
    }
}

/// Base64 with padding, as pictures come.
fn decode(text: &str) -> Vec<u8> {
    let value = |symbol: u8| match symbol {
        b'A'..=b'Z' => u32::from(symbol - b'A'),
        b'a'..=b'z' => u32::from(symbol - b'a') + 26,
        b'0'..=b'9' => u32::from(symbol - b'0') + 52,
        b'+' => 62,
        _ => 63,
    };
    let symbols: Vec<_> = text.bytes().filter(|symbol| *symbol != b'=').collect();
    let mut bytes = Vec::with_capacity(symbols.len() * 3 / 4);
    for four in symbols.chunks(4) {
        let word = four.iter().fold(0, |word, symbol| (word << 6) | value(*symbol));
        let word = word << (6 * (4 - four.len()));
        bytes.extend(&word.to_be_bytes()[1..four.len()]);
    }
    bytes
}
