//! The project's folder: `cdc.toml`, which `cdc init` writes once and a person changes from then on, and the objects
//! that arguments name.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use cdc::{ArchiveSettings, ObjectId, ObjectSpec, Project, Settings};
use toml::de::{DeTable, DeValue};

use crate::args::{Global, Tuning};
use crate::failure::Failure;

/// The file that makes a folder a project.
const FILE: &str = "cdc.toml";

/// The warehouse of a new project.
const WAREHOUSE: &str = "file:./warehouse";

/// Opens the project of the folder that was named, with its settings as flags and environment change them.
pub(crate) fn open(global: &Global, tuning: &Tuning) -> Result<Project, Failure> {
    let no_project = || Failure::NoProject { folder: global.dir.clone() };
    let folder = global.dir.canonicalize().ok().ok_or_else(no_project)?;
    let path = folder.join(FILE);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Err(Failure::NoProject { folder });
        }
        Err(source) => return Err(Failure::File { path, action: "read", source }),
    };
    let mut settings = parse(&path, &text)?;
    if let Some(warehouse) = &global.warehouse {
        match &mut settings.archive {
            Some(archive) => archive.warehouse.clone_from(warehouse),
            None => settings.archive = Some(ArchiveSettings::new(warehouse)),
        }
    }
    tuning.apply(&mut settings);
    settings.validate().map_err(cdc::Error::from)?;
    Ok(Project::open(folder, settings)?)
}

/// Whether the folder that was named is a project already.
pub(crate) fn exists(global: &Global) -> bool {
    global.dir.join(FILE).exists()
}

/// Makes the folder that was named a project. Gives the file written.
pub(crate) fn create(global: &Global) -> Result<PathBuf, Failure> {
    fs::create_dir_all(&global.dir).map_err(|source| Failure::File {
        path: global.dir.clone(),
        action: "created",
        source,
    })?;
    let path = global.dir.join(FILE);
    let failed = |source: io::Error| {
        if source.kind() == io::ErrorKind::AlreadyExists {
            return Failure::ProjectExists { path: path.clone() };
        }
        Failure::File { path: path.clone(), action: "written", source }
    };
    let text = template(global.warehouse.as_deref().unwrap_or(WAREHOUSE));
    parse(&path, &text)?;
    let mut file = fs::File::create_new(&path).map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
    let made = open(global, &Tuning::default()).and_then(|project| Ok(project.check_warehouse()?));
    if let Err(failure) = made {
        uncreate(global);
        return Err(failure);
    }
    Ok(path)
}

/// Takes back [`create`], and the empty folders of a project in which nothing was made.
pub(crate) fn uncreate(global: &Global) {
    // Whatever cannot be removed is not empty and somebody's.
    drop(fs::remove_file(global.dir.join(FILE)));
    drop(fs::remove_dir(global.dir.join(".cdc/objects")));
    drop(fs::remove_dir(global.dir.join(".cdc")));
}

fn template(warehouse: &str) -> String {
    let warehouse = toml::Value::String(warehouse.to_owned());
    let (link, archive) = (cdc::LinkOptions::default(), ArchiveSettings::new(""));
    let audit = cdc::AuditSettings::default();
    let handles = cdc::HandleSettings::default();
    let disk = cdc::DiskSettings::default();
    format!(
        r#"# Settings of this project. `cdc` reads this file and never changes it; flags and CDC_* variables win over it.
# What is commented out shows the default. Everything else of the project lies in .cdc/.

[archive]
# Where objects without a parent archive: file:PATH or a path, relative to this folder. Without this section nothing is.
warehouse = {warehouse}
# Archive as soon as this many events wait ...
# eventsMin = {events_min}
# ... and at the latest after this many milliseconds,
# interval = {interval}
# with at most this many events in one commit.
# eventsMax = {events_max}

[retention]
# Once everybody has taken them (the root, the archives on the way, every checkpoint), hot rows go that are older than
# `maxAge` milliseconds, or more than `maxEvents`, or more than `maxBytes` of bodies; without limits everything stays.
# All objects are visited once in about so many milliseconds.
# sweep = {sweep}
# Single objects have limits of their own:
# [retention.objects."https://crm.headless.ly/acme"]

[handles]
# So many objects have their files open at the same time, the others when they are used: `max`, or as many as `ulimit -n`
# and so many bytes of memory have room for. An object that nobody uses for so many milliseconds is closed.
# memoryMax = {memory_max}
# idle = {idle}

[disk]
# So many bytes of the disk are kept in .cdc/ballast; 0 for none. When the disk is full the engine removes that file, and
# sends, archives and prunes in its place; nothing new is taken until there is room for it again.
# ballast = {ballast}

[link]
# Most events in a batch to a parent, and how many milliseconds events may wait for a batch to fill up.
# batchSize = {batch_size}
# batchTimeout = {batch_timeout}
# Only these collections and operations go to parents; all when empty.
# collections = []
# operations = []                # of "INSERT", "UPDATE", "DELETE"

[capture]
# When drained rows are removed from applications' databases: "idle", a second after the last commit of others; "always",
# also while others commit, a few at a time, which asks them for a busy timeout; or "never".
# trim = "idle"

[audit]
# Every captured table is compared with its log once in so many milliseconds, 0 never, ...
# interval = {audit_interval}
# ... within so many percent of one processor.
# cpuPercent = {cpu_percent}

# Objects that another process of this machine runs with `cdc serve`, and its address: parents of objects here.
[remotes]                        # "https://crm.headless.ly" = "127.0.0.1:7410"
"#,
        memory_max = handles.memory_bytes_max,
        idle = handles.idle_ms,
        ballast = disk.ballast_bytes,
        events_min = archive.events_min,
        interval = archive.interval_ms,
        events_max = archive.events_max,
        sweep = cdc::RetentionSettings::default().sweep_ms,
        batch_size = link.batch_size,
        batch_timeout = link.batch_timeout_ms,
        audit_interval = audit.interval_ms,
        cpu_percent = audit.cpu_percent,
    )
}

fn parse(path: &Path, text: &str) -> Result<Settings, Failure> {
    let at = |span: Option<std::ops::Range<usize>>, message: &str| place(path, text, span, message);
    let settings: Settings =
        toml::from_str(text).map_err(|error: toml::de::Error| at(error.span(), error.message()))?;
    settings.validate().map_err(|error| at(span_of(text, &error), &error.to_string()))?;
    if let Some((object, address)) = settings.remotes.iter().find(|(_, address)| !address.ip().is_loopback())
    {
        let error = cdc::HttpError::NotLoopback { address: *address };
        return Err(at(span_in(text, "remotes", object.as_str()), &error.to_string()));
    }
    Ok(settings)
}

/// Where a setting that is outside its limits stands.
fn span_of(text: &str, error: &cdc::RelayError) -> Option<std::ops::Range<usize>> {
    let cdc::RelayError::Setting { name, .. } = error else { return None };
    ["link", "archive", "audit", "retention"].into_iter().find_map(|table| span_in(text, table, name))
}

/// Where the value of a setting stands.
fn span_in(text: &str, table: &str, name: &str) -> Option<std::ops::Range<usize>> {
    let file = DeTable::parse(text).ok()?;
    let DeValue::Table(table) = file.get_ref().get(table)?.get_ref() else { return None };
    Some(table.get(name)?.span())
}

/// A mistake in `cdc.toml` with its place, and the line it stands in.
fn place(path: &Path, text: &str, span: Option<std::ops::Range<usize>>, message: &str) -> Failure {
    let before = text.get(..span.map_or(0, |span| span.start)).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    let found = text.lines().nth(line - 1).unwrap_or_default();
    let (margin, indent) = (" ".repeat(line.to_string().len()), " ".repeat(column - 1));
    let excerpt = format!("  {line} | {found}\n  {margin} | {indent}^");
    let message = message.replace('\n', "; ");
    Failure::Settings { path: path.to_owned(), line, column, message, excerpt }
}

/// An object as an argument names it: by its id, of which `https://` may be omitted, or by the path of the database
/// that is attached to it.
#[derive(Clone, Debug)]
pub(crate) struct Target(String);

impl std::str::FromStr for Target {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl Target {
    /// The object, which must exist.
    pub(crate) fn find(&self, project: &Project) -> Result<ObjectSpec, Failure> {
        if let Some(spec) = self.attached(project)? {
            return Ok(spec);
        }
        let by_id = ObjectId::parse_short(&self.0).map(|id| project.object(&id));
        let path = Path::new(&self.0);
        match by_id {
            Ok(Ok(spec)) => Ok(spec),
            Ok(Err(cdc::Error::UnknownObject { .. })) | Err(_) if path.is_file() => {
                Err(Failure::NotAttached { path: path.to_owned() })
            }
            Ok(Err(error)) => Err(error.into()),
            Err(error) => Err(error.into()),
        }
    }

    /// The id, whether or not there is such an object.
    pub(crate) fn id(&self, project: &Project) -> Result<ObjectId, Failure> {
        match self.attached(project)? {
            Some(spec) => Ok(spec.id),
            None => Ok(ObjectId::parse_short(&self.0)?),
        }
    }

    fn attached(&self, project: &Project) -> Result<Option<ObjectSpec>, Failure> {
        let path = Path::new(&self.0);
        if self.0.contains("://") || !path.is_file() {
            return Ok(None);
        }
        Ok(project.object_of(path)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_project_has_the_default_settings() {
        let settings = parse(Path::new(FILE), &template(WAREHOUSE)).unwrap();
        assert_eq!(
            settings,
            Settings { archive: Some(ArchiveSettings::new(WAREHOUSE)), ..Settings::default() }
        );
        let odd = parse(Path::new(FILE), &template("a \"b\"\\c")).unwrap();
        assert_eq!(odd.archive.unwrap().warehouse, "a \"b\"\\c");
    }

    #[test]
    fn what_the_template_shows_commented_out_is_what_holds_without_it() {
        let active: String = template(WAREHOUSE)
            .lines()
            .map(|line| {
                line.strip_prefix("# ").filter(|line| line.contains(" = ")).unwrap_or(line).to_owned() + "\n"
            })
            .collect();
        assert_eq!(
            parse(Path::new(FILE), &active).unwrap(),
            parse(Path::new(FILE), &template(WAREHOUSE)).unwrap()
        );
    }

    #[test]
    fn mistakes_are_told_with_their_place() {
        for (text, line, column, message) in [
            ("[link]\nbatchSize = \"many\"\n", 2, 13, "invalid type: string \"many\", expected usize"),
            ("[link]\nbatchsize = 5\n", 2, 1, "unknown field `batchsize`"),
            ("[link]\n\nbatchSize = 0\n", 3, 13, "`batchSize` is 0, it must be from 1 to 10000"),
            (
                "[archive]\nwarehouse = \"w\"\neventsMax = 0\n",
                3,
                13,
                "`eventsMax` is 0, it must be 1 or more",
            ),
            ("[audit]\ncpuPercent = 0\n", 2, 14, "`cpuPercent` is 0, it must be 1 to 100"),
            ("[capture]\ntrim = \"often\"\n", 2, 8, "unknown variant `often`"),
            ("[archive\n", 1, 9, "unclosed table"),
            ("[archive]\ninterval = 5\n", 1, 1, "missing field `warehouse`"),
            ("[link]\noperations = [\"UPSERT\"]\n", 2, 15, "unknown variant `UPSERT`"),
            (
                "[remotes]\n\"https://a.b\" = \"10.0.0.1:7410\"\n",
                2,
                17,
                "10.0.0.1:7410 is not a loopback address",
            ),
            ("[remotes]\n\"https://a.b\" = \"localhost:7410\"\n", 2, 17, "invalid socket address syntax"),
            ("[remotes]\n\"a.b\" = \"127.0.0.1:7410\"\n", 2, 1, "\"a.b\" is not"),
        ] {
            match parse(Path::new(FILE), text) {
                Err(Failure::Settings { line: l, column: c, message: m, .. }) => {
                    assert!((l, c) == (line, column) && m.starts_with(message), "{text}: {l}:{c} {m}");
                }
                other => panic!("{text}: {other:?}"),
            }
        }
    }
}
