//! The `vecdrift` command: parse, call, print, exit code.

use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Duration;

use vecdrift::engine::interrupt;

/// What a shell takes a process to have been that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

/// How long a run that was interrupted may take to end in order. Files are written whole or not at all, so
/// nothing is half done where it takes longer.
const GRACE: Duration = Duration::from_millis(800);

/// What the last panic said.
static PANIC: Mutex<String> = Mutex::new(String::new());

fn main() -> ExitCode {
    // A decoder that panics on a damaged file is caught where it is called and told as an error; only a
    // panic that nobody catches is worth a message.
    std::panic::set_hook(Box::new(|info| {
        if let Ok(mut message) = PANIC.lock() {
            *message = info.to_string().replace('\n', " ");
        }
    }));
    // Where no handler can be set, Ctrl-C ends the process as it always does.
    let _ = ctrlc::set_handler(|| {
        if interrupt::requested() {
            interrupted();
        }
        interrupt::request();
        std::thread::spawn(|| {
            std::thread::sleep(GRACE);
            interrupted();
        });
    });
    let error = match std::panic::catch_unwind(vecdrift::cli::run) {
        Ok(Ok(outcome)) => return ExitCode::from(outcome.exit_code()),
        Ok(Err(error)) if error.is_interrupted() => interrupted(),
        Ok(Err(error)) => error,
        Err(_) => {
            let message = PANIC.lock().map(|m| m.clone()).unwrap_or_default();
            vecdrift::Error::device("internal error", message)
                .hint("this is a bug in vecdrift: please report it with the command line")
        }
    };
    eprintln!("error: {error}");
    if let Some(hint) = error.hint_text() {
        eprintln!("hint: {hint}");
    }
    ExitCode::from(2)
}

/// Says so, and ends the process.
fn interrupted() -> ! {
    eprintln!("interrupted: nothing more is written");
    std::process::exit(INTERRUPTED.into())
}
