use std::io::{self, IsTerminal as _};

use crate::args::Color;

/// Colours, or none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paint(bool);

impl Paint {
    pub(crate) fn of_stdout(color: Color) -> Self {
        Self::chosen(color, io::stdout().is_terminal())
    }

    pub(crate) fn of_stderr(color: Color) -> Self {
        Self::chosen(color, io::stderr().is_terminal())
    }

    fn chosen(color: Color, terminal: bool) -> Self {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self(match color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => terminal && !no_color,
        })
    }

    pub(crate) const fn is_on(self) -> bool {
        self.0
    }

    pub(crate) fn red(self, text: &str) -> String {
        self.with("1;31", text)
    }

    pub(crate) fn green(self, text: &str) -> String {
        self.with("32", text)
    }

    pub(crate) fn yellow(self, text: &str) -> String {
        self.with("33", text)
    }

    pub(crate) fn cyan(self, text: &str) -> String {
        self.with("36", text)
    }

    pub(crate) fn dim(self, text: &str) -> String {
        self.with("2", text)
    }

    pub(crate) fn bold(self, text: &str) -> String {
        self.with("1", text)
    }

    fn with(self, code: &str, text: &str) -> String {
        if self.0 { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}
