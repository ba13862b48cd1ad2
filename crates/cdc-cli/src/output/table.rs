use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;

/// A value that is a row of a table for people and a JSON object for programs.
pub(crate) trait Row: Serialize {
    /// The names of the columns.
    const COLUMNS: &'static [&'static str];

    /// What stands in them. A number goes to the right.
    fn cells(&self) -> Vec<Cell>;
}

/// A cell with a number, or nothing.
pub(crate) fn number(number: Option<impl ToString>) -> Cell {
    Cell::new(number.map_or_else(|| "-".to_owned(), |number| number.to_string()))
        .set_alignment(CellAlignment::Right)
}

pub(crate) fn render<T: Row>(rows: &[T], terminal: bool) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(T::COLUMNS.iter().map(|name| Cell::new(name.to_uppercase())));
    if terminal {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    }
    for row in rows {
        table.add_row(row.cells());
    }
    let mut text = String::new();
    for line in table.lines() {
        // The preset begins and ends each line with a space.
        text.push_str(line.strip_prefix(' ').unwrap_or(&line).trim_end());
        text.push('\n');
    }
    text
}
