//! Progress on stderr: a bar with rate and time left on a terminal, a line now and then elsewhere.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::engine::Progress;

/// Passes shorter than this show nothing.
const PATIENCE: Duration = Duration::from_millis(500);
/// Time between plain lines.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Tells a person how far a pass is.
#[derive(Debug)]
pub(super) struct StderrProgress {
    terminal: bool,
    pass: Mutex<Option<Pass>>,
}

#[derive(Debug)]
struct Pass {
    operation: String,
    total: u64,
    done: u64,
    started: Instant,
    last_line: Instant,
    bar: Option<ProgressBar>,
}

impl StderrProgress {
    pub(super) fn new() -> Self {
        Self {
            terminal: std::io::stderr().is_terminal(),
            pass: Mutex::new(None),
        }
    }

    fn with_pass(&self, change: impl FnOnce(&mut Option<Pass>)) {
        // A panic elsewhere must not turn into a second one here.
        let mut pass = self
            .pass
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        change(&mut pass);
    }
}

fn bar(operation: &str, total: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(10));
    if let Ok(style) = ProgressStyle::with_template(
        "{msg:15} {wide_bar} {percent:>3} %  {per_sec} pairs  {eta} left",
    ) {
        bar.set_style(style);
    }
    bar.set_message(operation.to_owned());
    bar
}

impl Progress for StderrProgress {
    fn begin(&self, operation: &str, total: u64) {
        let now = Instant::now();
        self.with_pass(|pass| {
            *pass = Some(Pass {
                operation: operation.to_owned(),
                total,
                done: 0,
                started: now,
                last_line: now,
                bar: None,
            });
        });
    }

    fn advance(&self, steps: u64) {
        self.with_pass(|pass| {
            let Some(pass) = pass else { return };
            pass.done += steps;
            let elapsed = pass.started.elapsed();
            if elapsed < PATIENCE || pass.done >= pass.total {
                return;
            }
            if self.terminal {
                let bar = pass
                    .bar
                    .get_or_insert_with(|| bar(&pass.operation, pass.total).with_elapsed(elapsed));
                bar.set_position(pass.done);
            } else if pass.last_line.elapsed() >= LINE_EVERY {
                pass.last_line = Instant::now();
                let share = pass.done as f64 / pass.total as f64;
                let left = elapsed.as_secs_f64() * (1.0 - share) / share;
                eprintln!(
                    "{}: {:.0} % done, about {left:.0} s left",
                    pass.operation,
                    share * 100.0
                );
            }
        });
    }

    fn end(&self) {
        self.with_pass(|pass| {
            if let Some(bar) = pass.take().and_then(|pass| pass.bar) {
                bar.finish_and_clear();
            }
        });
    }
}
