use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::Error;

/// What [`Location`] understands, as shown to the user who wrote something else.
const SUPPORTED: &str = "a folder: file:./warehouse, file:///srv/warehouse or a plain path";

/// Where the warehouse is: the folder that holds `tables/`.
///
/// Everything after `file:` is taken as a path as it stands; percent signs are not decoded.
///
/// ```
/// use cdc_iceberg::{Error, Location};
/// assert_eq!("file:./warehouse".parse::<Location>()?.path(), std::path::Path::new("./warehouse"));
/// assert_eq!("file:///srv/cdc".parse::<Location>()?.path(), std::path::Path::new("/srv/cdc"));
/// assert!(matches!("gs://bucket".parse::<Location>(), Err(Error::UnsupportedLocation { .. })));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    text: String,
    path: PathBuf,
}

impl Location {
    /// The warehouse in a local folder.
    #[must_use]
    pub fn folder(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self { text: path.display().to_string(), path }
    }

    /// The folder, relative or absolute as written.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl FromStr for Location {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let refuse = || Error::UnsupportedLocation { location: text.to_owned(), supported: SUPPORTED };
        let path = match split_scheme(text) {
            Some(("file", rest)) => local_path(rest).ok_or_else(refuse)?,
            Some(_) => return Err(refuse()),
            None => text,
        };
        if path.is_empty() {
            return Err(refuse());
        }
        Ok(Self { text: text.to_owned(), path: PathBuf::from(path) })
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A one-letter scheme is a Windows drive and a scheme with a `/` in it is a path.
fn split_scheme(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once(':')?;
    let is_scheme =
        scheme.len() > 1 && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    is_scheme.then_some((scheme, rest))
}

/// `//host/path` names another machine, which this process cannot open.
fn local_path(rest: &str) -> Option<&str> {
    match rest.strip_prefix("//") {
        Some(absolute) => absolute.starts_with('/').then_some(absolute),
        None => Some(rest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_read_as_people_write_them() {
        for (text, path) in [
            ("file:./warehouse", "./warehouse"),
            ("file:warehouse", "warehouse"),
            ("file:/srv/w", "/srv/w"),
            ("file:///srv/w", "/srv/w"),
            ("file:///srv/a%20b c", "/srv/a%20b c"),
            ("./warehouse", "./warehouse"),
            ("/srv/w", "/srv/w"),
            ("c:/warehouse", "c:/warehouse"),
            ("./a:b", "./a:b"),
        ] {
            assert_eq!(text.parse::<Location>().unwrap().path(), Path::new(path), "{text}");
        }
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        for text in
            ["", "file:", "file://", "file://host/w", "s3://bucket/w", "r2://do-cdc", "https://x", "memory:"]
        {
            let error = text.parse::<Location>().unwrap_err();
            assert!(
                matches!(&error, Error::UnsupportedLocation { location, .. } if location == text),
                "{text}"
            );
            assert!(error.to_string().contains("file:./warehouse"), "{error}");
        }
    }
}
