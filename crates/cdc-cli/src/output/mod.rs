//! What goes to the terminal or the pipe: which format, whether coloured, and the only writers of stdout and stderr.

mod event;
mod paint;
pub(crate) use paint::Paint;
mod progress;
pub(crate) use progress::ProgressLine;
mod table;
pub(crate) use table::{Row, number};
mod text;
pub(crate) use text::{brief, plural};

use std::io::{self, BufWriter, IsTerminal as _, Stdout, Write as _};

use cdc::{Clock, ObjectId, Record};
use clap::ValueEnum;
use serde::Serialize;

use crate::args::Global;
use crate::failure::Failure;

/// How data is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people: tables, and one line for each event
    Table,
    /// One JSON value per line
    Ndjson,
    /// One JSON array
    Json,
    /// Events as Debezium envelopes, one per line
    Debezium,
    /// Events as CloudEvents 1.0, one per line
    Cloudevents,
}

/// Says something to the person at the terminal.
pub(crate) fn note(text: &str) {
    // A stderr that cannot be written is no reason to stop.
    drop(writeln!(io::stderr(), "{text}"));
}

/// What came of a question.
#[derive(Debug)]
pub(crate) enum Answer {
    Yes,
    No,
    /// There is no terminal.
    Nobody,
}

/// Asks the person at the terminal. Blocks until there is an answer.
pub(crate) fn ask(question: &str) -> Answer {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Answer::Nobody;
    }
    drop(write!(io::stderr(), "{question} [y/N] "));
    let mut answer = String::new();
    drop(io::stdin().read_line(&mut answer));
    let yes = matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes");
    if yes { Answer::Yes } else { Answer::No }
}

/// Sends what the engine logs to stderr.
pub(crate) fn log_to_stderr(filter: &str, paint: Paint) {
    // What has stopped is told by the commands themselves, when it stops and when it recovers.
    let filter = format!("cdc::shared=error,{filter}");
    let filter = tracing_subscriber::EnvFilter::new(filter);
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(paint.is_on()).init();
}

/// Where data goes.
#[derive(Debug)]
pub(crate) struct Output {
    stdout: BufWriter<Stdout>,
    format: Format,
    paint: Paint,
    clock: Clock,
    /// Values printed so far; an array needs to know.
    values: u64,
    /// The file being written to went away or failed; nothing more is written.
    broken: bool,
}

/// How an event is shown to people.
#[derive(Clone, Debug)]
pub(crate) struct View {
    /// The object whose log is being read: an event of another one is shown with its origin.
    pub(crate) of: ObjectId,
    /// With its place in the log and its time.
    pub(crate) placed: bool,
}

impl Output {
    pub(crate) fn new(global: &Global, clock: Clock) -> Self {
        let terminal = io::stdout().is_terminal();
        let format = global.output.unwrap_or(if terminal { Format::Table } else { Format::Ndjson });
        let paint = Paint::of_stdout(global.color);
        Self { stdout: BufWriter::new(io::stdout()), format, paint, clock, values: 0, broken: false }
    }

    /// Whether people read the data.
    pub(crate) fn is_for_people(&self) -> bool {
        self.format == Format::Table
    }

    /// Refuses formats that only events have.
    pub(crate) fn check_no_event_format(&self) -> Result<(), Failure> {
        if matches!(self.format, Format::Debezium | Format::Cloudevents) {
            let name = self.format.to_possible_value().map(|value| value.get_name().to_owned());
            return Err(Failure::Usage {
                reason: format!("this command has no events to print as {}", name.unwrap_or_default()),
                help: "use -o table, ndjson or json here; tail, replay, history and watch print events",
            });
        }
        Ok(())
    }

    /// Prints values of one kind: a table for people, else JSON.
    pub(crate) fn rows<T: Row>(&mut self, rows: &[T]) -> Result<(), Failure> {
        if self.is_for_people() {
            let text = table::render(rows, io::stdout().is_terminal());
            self.write(&text)?;
            // What is said next on stderr comes after the table.
            return self.flush();
        }
        rows.iter().try_for_each(|row| self.value(row))?;
        self.flush()
    }

    /// Tells a program what was done; people are told on stderr.
    pub(crate) fn receipt(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        if self.is_for_people() { Ok(()) } else { self.value(value) }
    }

    /// Prints one value as JSON.
    pub(crate) fn value(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string(value).map_err(|error| Failure::Output { source: error.into() })?;
        self.json(&text)
    }

    /// Prints one event.
    pub(crate) fn record(&mut self, record: &Record, view: &View) -> Result<(), Failure> {
        match self.format {
            Format::Table => {
                let line = event::line(record, view, self.paint)?;
                self.write(&format!("{line}\n"))
            }
            Format::Ndjson | Format::Json => self.json(&record.to_json()?),
            Format::Cloudevents => self.json(&cdc::to_cloudevent(record)?),
            Format::Debezium => match cdc::to_debezium(record, self.clock.now())? {
                Some(text) => self.json(&text),
                None => Ok(()),
            },
        }
    }

    /// Prints text for people.
    pub(crate) fn write(&mut self, text: &str) -> Result<(), Failure> {
        let done = self.stdout.write_all(text.as_bytes());
        self.checked(done)
    }

    /// Makes sure that what was printed so far can be read.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        let done = self.stdout.flush();
        self.checked(done)
    }

    /// Ends the output.
    pub(crate) fn finish(&mut self) -> Result<(), Failure> {
        if self.broken {
            return Ok(());
        }
        if self.format == Format::Json && self.values > 0 {
            self.write("]\n")?;
        }
        self.flush()
    }

    /// An empty answer of a command that has one is an empty array too.
    pub(crate) fn none(&mut self) -> Result<(), Failure> {
        if self.format == Format::Json && self.values == 0 { self.write("[]\n") } else { Ok(()) }
    }

    fn json(&mut self, text: &str) -> Result<(), Failure> {
        let (before, after) = match (self.format, self.values) {
            (Format::Json, 0) => ("[", ""),
            (Format::Json, _) => (",\n", ""),
            _ => ("", "\n"),
        };
        self.values += 1;
        self.write(&format!("{before}{text}{after}"))
    }

    fn checked(&mut self, done: io::Result<()>) -> Result<(), Failure> {
        done.map_err(|source| {
            self.broken = true;
            if source.kind() == io::ErrorKind::BrokenPipe {
                return Failure::ClosedPipe;
            }
            Failure::Output { source }
        })
    }
}
