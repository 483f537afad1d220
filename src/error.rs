//! One error for the whole library: what happened, where, and the way out.

use std::fmt::{self, Display};

/// Result of every fallible call in this library.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, in one line, with an optional hint.
///
/// The message is written for the person who started the run: place first, then what was found and
/// what was expected (`current.parquet: column "embedding": row 41822 has 767 values, expected 768`).
/// Kinds are private so that new ones break nobody; ask the predicates instead.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    message: String,
    hint: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Input,
    Device,
    DeviceLost,
    OutOfMemory,
    Output,
    Interrupted,
}

impl Error {
    /// The user's data or arguments are not what the operation needs.
    pub fn input(place: impl Display, fact: impl Display) -> Self {
        Self::new(Kind::Input, place, fact)
    }

    /// The device failed or cannot do what was asked.
    pub fn device(place: impl Display, fact: impl Display) -> Self {
        Self::new(Kind::Device, place, fact)
    }

    /// The device is gone; another one may be there in its place.
    pub(crate) fn device_lost(place: impl Display, fact: impl Display) -> Self {
        Self::new(Kind::DeviceLost, place, fact)
    }

    /// The device has no memory for what was asked.
    pub(crate) fn out_of_memory(place: impl Display, fact: impl Display) -> Self {
        Self::new(Kind::OutOfMemory, place, fact)
    }

    /// The run was asked to stop.
    pub(crate) fn interrupted() -> Self {
        Self::new(Kind::Interrupted, "interrupted", "nothing more is written")
    }

    /// A result could not be written.
    pub fn output(place: impl Display, fact: impl Display) -> Self {
        Self::new(Kind::Output, place, fact)
    }

    fn new(kind: Kind, place: impl Display, fact: impl Display) -> Self {
        // Messages of other libraries may span lines; ours is one line by contract.
        let message = format!("{place}: {fact}").replace(['\n', '\r'], " ");
        Self {
            kind,
            message,
            hint: None,
        }
    }

    /// Adds the way out, shown on its own line.
    #[must_use]
    pub fn hint(mut self, hint: impl Display) -> Self {
        self.hint = Some(hint.to_string());
        self
    }

    /// The way out, where one is known.
    pub fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Whether the user's data or arguments are at fault.
    pub fn is_input(&self) -> bool {
        self.kind == Kind::Input
    }

    /// Whether the device is at fault.
    pub fn is_device(&self) -> bool {
        matches!(
            self.kind,
            Kind::Device | Kind::DeviceLost | Kind::OutOfMemory
        )
    }

    /// Whether the device is gone.
    pub(crate) fn is_lost(&self) -> bool {
        self.kind == Kind::DeviceLost
    }

    /// Whether the device had no memory.
    pub(crate) fn is_out_of_memory(&self) -> bool {
        self.kind == Kind::OutOfMemory
    }

    /// Whether the run was asked to stop, as by Ctrl-C.
    pub fn is_interrupted(&self) -> bool {
        self.kind == Kind::Interrupted
    }

    /// Whether writing a result failed.
    pub fn is_output(&self) -> bool {
        self.kind == Kind::Output
    }
}

impl Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
