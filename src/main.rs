//! The `vecdrift` command: parse, call, print, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    match vecdrift::cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            if let Some(hint) = error.hint_text() {
                eprintln!("hint: {hint}");
            }
            ExitCode::from(2)
        }
    }
}
