use crate::world::World;

const COMMANDS: [&str; 18] = [
    "",
    "watch",
    "init",
    "create",
    "attach",
    "detach",
    "run",
    "serve",
    "tail",
    "replay",
    "fold",
    "history",
    "checkpoint",
    "checkpoint set",
    "archive",
    "prune",
    "tree",
    "verify",
];

#[test]
fn the_help_of_every_command_teaches_by_example() {
    let world = World::new();
    let mut seen = String::new();
    for command in COMMANDS {
        let help = world.ok(&format!("{command} --help"));
        assert!(help.contains("Examples:") || command == "checkpoint set", "{command}");
        // What is the same everywhere is shown once.
        let own = if command.is_empty() { &help } else { help.split("Global options:").next().unwrap() };
        let examples = help.split_once("Examples:").map(|(_, examples)| examples).unwrap_or_default();
        let examples = if command.is_empty() { "" } else { examples };
        seen.push_str(&format!("$ cdc {command} --help\n{own}{examples}\n"));
    }
    insta::assert_snapshot!(seen);
}

#[test]
fn completions_are_printed_for_each_shell() {
    let world = World::new();
    for (shell, begin) in [("bash", "_cdc()"), ("zsh", "#compdef cdc"), ("fish", "# Print an optspec")] {
        assert!(world.ok(&format!("completions {shell}")).starts_with(begin), "{shell}");
    }
}

#[test]
fn what_is_no_command_is_a_usage_error() {
    let world = World::new();
    insta::assert_snapshot!(world.session(&["", "frobnicate", "tail", "replay x --after", "tail x -o yaml"]));
}
