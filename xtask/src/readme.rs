//! Commands that the README shows and continuous integration runs, so that the README cannot rot.
//!
//! A command is the fenced block that follows its marker comment, `<!-- test-command -->` for example. In a
//! `console` block the commands are the lines after `$ `; in any other block every line is one.

use crate::error::Error;

const README: &str = "README.md";

/// The shell lines under a marker.
///
/// # Errors
///
/// [`Error::Content`] when the marker, its block or a command in the block is missing.
pub(crate) fn command(text: &str, marker: &str) -> Result<Vec<String>, Error> {
    let comment = format!("<!-- {marker} -->");
    let mut lines = text.lines().skip_while(|line| line.trim() != comment).skip(1);
    let fence = lines.by_ref().find(|line| !line.trim().is_empty());
    let Some(language) = fence.and_then(|line| line.trim().strip_prefix("```")) else {
        return Err(missing(format!("put `{comment}` on a line of its own above the fenced command")));
    };
    let block = lines.take_while(|line| line.trim() != "```");
    let commands: Vec<String> = match language {
        "console" => block.filter_map(|line| line.trim().strip_prefix("$ ")).map(str::to_owned).collect(),
        _ => block.map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect(),
    };
    if commands.is_empty() {
        return Err(missing(format!("the block under `{comment}` shows no command")));
    }
    Ok(commands)
}

/// The same command with `--dir FOLDER`: in place of the one it names, otherwise at the end of its last line.
pub(crate) fn in_folder(commands: &[String], folder: &str) -> Vec<String> {
    let mut found = false;
    let mut moved: Vec<String> = commands
        .iter()
        .map(|line| {
            let mut words: Vec<&str> = line.split(' ').collect();
            if let Some(value) = words.iter().position(|word| *word == "--dir").map(|at| at + 1) {
                words.splice(value..words.len().min(value + 1), [folder]);
                found = true;
            }
            words.join(" ")
        })
        .collect();
    if let (false, Some(last)) = (found, moved.last_mut()) {
        *last = format!("{last} --dir {folder}");
    }
    moved
}

fn missing(what: String) -> Error {
    Error::Content { path: README.to_owned(), what }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# A\n\n<!-- one -->\n\n```sh\ncargo a\n\ncargo b\n```\n\n<!-- two -->\n```console\n$ demo --x\nok\n```\n<!-- three -->\ntext\n<!-- four -->\n```console\nno command\n```\n";

    #[test]
    fn a_command_is_the_block_under_its_marker() {
        for (marker, expected) in [("one", vec!["cargo a", "cargo b"]), ("two", vec!["demo --x"])] {
            assert_eq!(command(TEXT, marker).expect("the marker has a command"), expected);
        }
    }

    #[test]
    fn a_missing_marker_block_or_command_is_an_error_that_names_the_marker() {
        for marker in ["three", "four", "five"] {
            let error = command(TEXT, marker).expect_err("there is no command").to_string();
            assert!(error.contains(&format!("<!-- {marker} -->")), "{error}");
        }
    }

    #[test]
    fn the_folder_replaces_a_named_one_and_is_added_otherwise() {
        for (lines, expected) in [
            (vec!["demo"], vec!["demo --dir T"]),
            (vec!["demo --dir ./x --fast"], vec!["demo --dir T --fast"]),
            (vec!["demo --dir"], vec!["demo --dir T"]),
            (vec!["make --dir a", "cat"], vec!["make --dir T", "cat"]),
        ] {
            let lines: Vec<String> = lines.into_iter().map(str::to_owned).collect();
            assert_eq!(in_folder(&lines, "T"), expected);
        }
    }
}
