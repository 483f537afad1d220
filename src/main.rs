//! The `vecdrift` command: parse, call, print, exit code.

use std::process::ExitCode;
use std::sync::Mutex;

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
    let error = match std::panic::catch_unwind(vecdrift::cli::run) {
        Ok(Ok(outcome)) => return ExitCode::from(outcome.exit_code()),
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
