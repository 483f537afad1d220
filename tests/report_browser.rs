//! The report in a real browser: headless Chromium, driven through its DevTools protocol.
//!
//! Without a browser these tests say that they were skipped, unless `VECDRIFT_REQUIRE_BROWSER=1`.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use vecdrift::report::{Figure, Item, Page, Section, html};

use super::report::{degenerate_plots, hostile, page_of, scatter, scifact};

/// Chromium with one page open. The protocol's messages go through file descriptors 3 and 4.
struct Browser {
    process: Child,
    requests: ChildStdin,
    messages: Receiver<Value>,
    session: Option<String>,
    sent: u64,
    /// What the page complained of: exceptions, console errors, refused by its security policy.
    complaints: Vec<String>,
    loaded: bool,
    folder: TempDir,
}

impl Browser {
    /// None, said on stderr, where there is no browser and none is required.
    fn start() -> Option<Self> {
        let names = ["chromium", "chromium-browser", "google-chrome"];
        let places = std::env::var_os("PATH")?;
        let found = names.iter().find_map(|name| {
            std::env::split_paths(&places)
                .map(|folder| folder.join(name))
                .find(|path| path.is_file())
        });
        let Some(program) = found else {
            let required = std::env::var_os("VECDRIFT_REQUIRE_BROWSER").is_some_and(|v| v == "1");
            assert!(!required, "no Chromium, and VECDRIFT_REQUIRE_BROWSER is 1");
            eprintln!("skipped: no Chromium");
            return None;
        };
        let folder = TempDir::new().unwrap();
        let mut process = Command::new("sh")
            .args([
                "-c",
                "exec \"$0\" \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1",
            ])
            .arg(program)
            .args([
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--no-first-run",
            ])
            .args([
                "--disable-dev-shm-usage",
                "--hide-scrollbars",
                "--remote-debugging-pipe",
            ])
            .arg(format!("--user-data-dir={}", folder.path().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let requests = process.stdin.take().unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let (send, messages) = channel();
        std::thread::spawn(move || {
            let mut message = Vec::new();
            while output
                .read_until(0, &mut message)
                .is_ok_and(|read| read > 0)
            {
                message.pop();
                let Ok(value) = serde_json::from_slice(&message) else {
                    break;
                };
                if send.send(value).is_err() {
                    break;
                }
                message.clear();
            }
        });
        let mut browser = Self {
            process,
            requests,
            messages,
            session: None,
            sent: 0,
            complaints: Vec::new(),
            loaded: false,
            folder,
        };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"}));
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let session = browser.call("Target.attachToTarget", attach);
        browser.session = session["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        Some(browser)
    }

    fn call(&mut self, method: &str, params: Value) -> Value {
        self.sent += 1;
        let mut request = json!({"id": self.sent, "method": method, "params": params});
        if let Some(session) = &self.session {
            request["sessionId"] = json!(session);
        }
        write!(self.requests, "{request}\0").unwrap();
        self.requests.flush().unwrap();
        loop {
            let message = self.receive();
            if message["id"] == self.sent {
                assert!(message["error"].is_null(), "{method}: {}", message["error"]);
                return message["result"].clone();
            }
        }
    }

    fn receive(&mut self) -> Value {
        let limit = Duration::from_secs(120);
        let message = self.messages.recv_timeout(limit).expect("Chromium answers");
        let params = &message["params"];
        match message["method"].as_str() {
            Some("Page.loadEventFired") => self.loaded = true,
            Some("Runtime.exceptionThrown") => {
                self.complaints.push(params["exceptionDetails"].to_string());
            }
            Some("Log.entryAdded") => self.complaints.push(params["entry"].to_string()),
            Some("Runtime.consoleAPICalled") => self.complaints.push(params.to_string()),
            _ => {}
        }
        message
    }

    fn size(&mut self, width: u32, height: u32) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500});
        self.call("Emulation.setDeviceMetricsOverride", size);
    }

    /// Shows a page of the report, `width` pixels wide.
    fn open(&mut self, page: &Page, width: u32) {
        let path = self.folder.path().join("report.html");
        std::fs::write(&path, html(page).unwrap()).unwrap();
        self.show(&path, width);
    }

    fn show(&mut self, path: &Path, width: u32) {
        self.size(width, 900);
        self.loaded = false;
        let url = format!("file://{}", path.display());
        self.call("Page.navigate", json!({"url": url}));
        while !self.loaded {
            self.receive();
        }
        self.settle();
    }

    /// Waits until two frames were drawn.
    fn settle(&mut self) {
        self.value("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))");
    }

    fn value(&mut self, expression: &str) -> Value {
        let request =
            json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let answer = self.call("Runtime.evaluate", request);
        assert!(
            answer["exceptionDetails"].is_null(),
            "{expression}: {answer}"
        );
        answer["result"]["value"].clone()
    }

    fn count(&mut self, selector: &str) -> u64 {
        let selector = json!(selector);
        self.value(&format!("document.querySelectorAll({selector}).length"))
            .as_u64()
            .unwrap()
    }

    fn mouse(&mut self, kind: &str, [x, y]: [f64; 2], buttons: u8) {
        let button = if kind == "mouseMoved" { "none" } else { "left" };
        let event = json!({"type": kind, "x": x, "y": y, "button": button, "buttons": buttons, "clickCount": 1});
        self.call("Input.dispatchMouseEvent", event);
    }

    fn press(&mut self, key: &str) {
        self.call(
            "Input.dispatchKeyEvent",
            json!({"type": "keyDown", "key": key, "text": key}),
        );
        self.call(
            "Input.dispatchKeyEvent",
            json!({"type": "keyUp", "key": key}),
        );
        self.settle();
    }

    /// The page complained of nothing so far.
    fn content(&self) {
        assert!(self.complaints.is_empty(), "{:#?}", self.complaints);
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Its own request to close ends helpers too; what is left is ended by force.
        self.session = None;
        let _ = write!(
            self.requests,
            "{}\0",
            json!({"id": 0, "method": "Browser.close"})
        );
        std::thread::sleep(Duration::from_millis(300));
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The report of the tests with a map.
fn page() -> Page {
    let mut page = scifact();
    page.sections.push(Section {
        id: "map".into(),
        title: "Map".into(),
        lead: String::new(),
        items: vec![Item::Figure(Figure {
            title: "Map".into(),
            reading: "r".into(),
            plot: scatter(),
        })],
    });
    page
}

fn figures(page: &Page) -> u64 {
    let items = page.sections.iter().flat_map(|section| &section.items);
    items.filter(|item| matches!(item, Item::Figure(_))).count() as u64
}

#[test]
fn every_figure_is_drawn_and_nothing_is_complained_of() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    for page in [page(), hostile(), page_of(degenerate_plots())] {
        browser.open(&page, 1200);
        assert_eq!(browser.count("figure.plot.interactive"), figures(&page));
        assert_eq!(
            browser.count(".stage:not(:has(svg))"),
            0,
            "a figure without a drawing"
        );
        browser.content();
    }
    browser.open(&Page::default(), 1200);
    assert_eq!(
        browser.count("script"),
        0,
        "a page without figures needs no script"
    );
    browser.content();
    // The tests of this file can fail: what the page does not allow is complained of.
    browser.value("document.body.append(Object.assign(new Image(), {src: 'data:image/gif;base64,R0lGOD'})); 1");
    browser.settle();
    assert!(!browser.complaints.is_empty());
}

#[test]
fn figures_answer_to_pointer_and_keys() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let page = page();
    browser.open(&page, 1200);
    for i in 0..figures(&page) {
        let stage = format!("document.querySelectorAll('.stages')[{i}]");
        // A value under the pointer.
        let middle = format!(
            "{stage}.scrollIntoView({{block: 'center'}}), (() => {{ const b = {stage}.querySelector('svg').getBoundingClientRect(); return [b.x + 0.4 * b.width, b.y + 0.5 * b.height]; }})()"
        );
        let at = browser.value(&middle);
        let at = [at[0].as_f64().unwrap(), at[1].as_f64().unwrap()];
        let tips = format!("{stage}.querySelectorAll('[aria-label=tip] text').length");
        assert_eq!(
            browser.value(&tips),
            0,
            "figure {i} has a tip before the pointer is there"
        );
        browser.mouse("mouseMoved", at, 0);
        browser.settle();
        assert_eq!(browser.value(&tips), 1, "figure {i} has no tip");
        // Zoom by keys, and back.
        let drawn = format!(
            "{stage}.querySelector('svg').innerHTML.replace(/plot-(clip|marker)-\\d+/g, '')"
        );
        browser.mouse("mouseMoved", [1.0, 1.0], 0);
        browser.settle();
        let whole = browser.value(&drawn);
        browser.value(&format!("{stage}.focus(), 1"));
        browser.press("+");
        assert_ne!(browser.value(&drawn), whole, "figure {i} does not zoom");
        browser.press("0");
        assert_eq!(
            browser.value(&drawn),
            whole,
            "figure {i} does not come back"
        );
    }
    browser.content();
}

#[test]
fn series_and_slices_can_be_chosen() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    browser.open(&page(), 1200);
    let dots = ".stage:first-child [aria-label=dot] circle";
    let map = "figure.plot:has(select.slices)";
    let shown = format!("{map} {dots}");
    assert_eq!(browser.count(&shown), 60);
    let choose = |name: &str| {
        format!(
            "(() => {{ const s = document.querySelector('select.slices'); s.value = [...s.options].find((o) => o.text === '{name}').value; s.dispatchEvent(new Event('change')); return 1; }})()"
        )
    };
    browser.value(&choose("even"));
    assert_eq!(browser.count(&shown), 30);
    browser.value(&choose("odd"));
    assert_eq!(browser.count(&shown), 29, "one odd item is of no kind");
    browser.value(&choose("all"));
    assert_eq!(browser.count(&shown), 60);
    let colours = format!(
        "new Set([...document.querySelectorAll('{shown}')].map((c) => c.getAttribute('fill'))).size"
    );
    let by_number = browser.value(&colours);
    browser.value("(() => { const s = document.querySelector('.toolbar select'); s.value = 1; s.dispatchEvent(new Event('change')); return 1; })()");
    let by_kind = browser.value(&colours);
    assert_eq!(
        (by_number, by_kind),
        (json!(3), json!(3)),
        "two values and unknown"
    );

    // A series is hidden by its entry in the legend.
    let areas = "figure.plot:has(.legend button) [aria-label=area]";
    let before = browser.count(areas);
    browser.value("document.querySelector('.legend button').click(), 1");
    assert!(browser.count(areas) < before || browser.count(".legend [aria-pressed=false]") == 1);
    // The numbers behind a figure.
    browser.value("document.querySelectorAll('.numbers').forEach((d) => (d.open = true)), 1");
    browser.settle();
    assert_eq!(browser.count(".numbers:not(:has(tbody tr))"), 0);
    browser.content();
}

#[test]
fn a_phone_does_not_scroll_sideways_and_paper_gets_the_drawings() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    for width in [360, 390, 768, 1200] {
        browser.open(&page(), width);
        let beyond = browser.value("document.documentElement.scrollWidth - innerWidth");
        assert!(
            beyond.as_f64().unwrap() <= 0.0,
            "{width}: {beyond} pixels too wide"
        );
    }
    let seen = |selector: &str| {
        format!(
            "[...document.querySelectorAll('{selector}')].filter((e) => e.checkVisibility()).length"
        )
    };
    assert_eq!(browser.value(&seen(".wide > svg")), 0);
    browser.call("Emulation.setEmulatedMedia", json!({"media": "print"}));
    assert_eq!(browser.value(&seen(".wide > svg")), figures(&page()));
    assert_eq!(browser.value(&seen(".live")), 0);
    let pdf = browser.call("Page.printToPDF", json!({"preferCSSPageSize": true}));
    assert!(pdf["data"].as_str().is_some_and(|data| data.len() > 10_000));
    let dark =
        json!({"media": "screen", "features": [{"name": "prefers-color-scheme", "value": "dark"}]});
    browser.call("Emulation.setEmulatedMedia", dark);
    let paper = "getComputedStyle(document.body).backgroundColor";
    assert_eq!(browser.value(paper), "rgb(20, 23, 27)");
    browser.settle();
    browser.content();
}

/// Reports as the program writes them: all figures drawn, nothing complained of, no scrolling sideways on a
/// phone.
#[test]
fn reports_of_the_program_are_whole() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let fixture = |name: &str| format!("{}/fixtures/{name}.parquet", env!("CARGO_MANIFEST_DIR"));
    let (old, half, new) = (fixture("reference"), fixture("half_b"), fixture("shifted"));
    for (command, inputs) in [
        ("audit", vec![old.as_str(), new.as_str()]),
        ("series", vec![old.as_str(), half.as_str(), new.as_str()]),
    ] {
        let out = folder.path().join(command);
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_vecdrift"))
            .arg(command)
            .args(inputs)
            .args(["--device", "cpu", "-q", "--out"])
            .arg(&out)
            .output()
            .expect("the program runs");
        assert!(output.status.success(), "{command}: {output:?}");
        for width in [1200, 390] {
            browser.show(&out.join("report.html"), width);
            assert!(browser.count("figure.plot.interactive") > 1, "{command}");
            assert_eq!(browser.count(".stage:not(:has(svg))"), 0, "{command}");
            let beyond = browser.value("document.documentElement.scrollWidth - innerWidth");
            assert!(
                beyond.as_f64().unwrap() <= 0.0,
                "{command}, {width}: {beyond} too wide"
            );
        }
        browser.content();
    }
}
