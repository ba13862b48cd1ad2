use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::Error;

/// The longest [`ObjectId::file_name`] in bytes, so that `-wal` and other suffixes still fit a file name.
pub const FILE_NAME_BYTES_MAX: usize = 200;

/// The address of a Digital Object: an absolute https URL, parsed once and normalised.
///
/// Host in lower case, no default port, no trailing slash, no user, query or fragment; percent-escapes in upper
/// case and only where needed. Two ids are equal exactly when their text is equal.
///
/// ```
/// use cdc_model::ObjectId;
/// let id: ObjectId = "https://CRM.headless.ly:443/acme/".parse()?;
/// assert_eq!(id.as_str(), "https://crm.headless.ly/acme");
/// assert_eq!(id.file_name(), "crm.headless.ly~acme");
/// # Ok::<(), cdc_model::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ObjectId(Arc<str>);

impl ObjectId {
    /// Parses an id as a person types it: `https://` may be omitted.
    ///
    /// # Errors
    ///
    /// [`Error::ObjectId`] with what to write instead.
    pub fn parse_short(text: &str) -> Result<Self, Error> {
        if text.contains("://") { text.parse() } else { format!("https://{text}").parse() }
    }

    /// The normalised URL.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The URL without `https://`, as people write it.
    #[must_use]
    pub fn short(&self) -> &str {
        self.0.strip_prefix("https://").unwrap_or(&self.0)
    }

    /// An injective name that is safe as one path segment on every file system and object store.
    ///
    /// `/` becomes `~`; everything but `a-z 0-9 . -` becomes `_` and two hex digits, upper-case letters too, so
    /// that ids stay apart on file systems that ignore case. At most [`FILE_NAME_BYTES_MAX`] bytes.
    #[must_use]
    pub fn file_name(&self) -> String {
        file_name_of(self.short())
    }
}

fn file_name_of(short: &str) -> String {
    let mut name = String::with_capacity(short.len());
    for byte in short.bytes() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' => name.push(char::from(byte)),
            b'/' => name.push('~'),
            other => name.push_str(&format!("_{other:02x}")),
        }
    }
    name
}

impl FromStr for ObjectId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let refuse = |reason| Error::ObjectId { text: text.chars().take(300).collect(), reason };
        let (scheme, rest) = text
            .split_once("://")
            .ok_or_else(|| refuse("write an absolute URL such as https://crm.headless.ly/acme"))?;
        if !scheme.eq_ignore_ascii_case("https") {
            return Err(refuse("its scheme must be https"));
        }
        if rest.contains(['?', '#']) {
            return Err(refuse("an id has no query and no fragment"));
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let authority = authority_of(authority).map_err(refuse)?;
        let path = path_of(path).map_err(refuse)?;
        let short = format!("{authority}{path}");
        if file_name_of(&short).len() > FILE_NAME_BYTES_MAX {
            return Err(refuse("it is too long: its file name may have 200 bytes"));
        }
        Ok(Self(format!("https://{short}").into()))
    }
}

fn authority_of(authority: &str) -> Result<String, &'static str> {
    if authority.contains('@') {
        return Err("an id has no user name");
    }
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    let host = host.to_ascii_lowercase();
    let label_ok = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && label.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
    };
    if !host.split('.').all(label_ok) {
        return Err(
            "its host must be a name of letters, digits, hyphens and dots (write other alphabets as xn--…)",
        );
    }
    match port {
        None | Some("443") => Ok(host),
        Some(port) => match port.parse::<u16>() {
            Ok(number) if number > 0 => Ok(format!("{host}:{number}")),
            Ok(_) | Err(_) => Err("its port must be a number from 1 to 65535"),
        },
    }
}

fn path_of(path: &str) -> Result<String, &'static str> {
    let path = path.strip_suffix('/').unwrap_or(path);
    if path.is_empty() {
        return Ok(String::new());
    }
    let mut normal = String::with_capacity(path.len() + 1);
    for segment in path.split('/') {
        let segment = segment_of(segment)?;
        if segment.is_empty() || segment == "." || segment == ".." {
            return Err("its path may not have empty, `.` or `..` segments");
        }
        normal.push('/');
        normal.push_str(&segment);
    }
    Ok(normal)
}

fn segment_of(segment: &str) -> Result<String, &'static str> {
    let mut normal = String::with_capacity(segment.len());
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        let decoded = if byte == b'%' {
            let hex = [bytes.next().unwrap_or(b'!'), bytes.next().unwrap_or(b'!')];
            let hex = std::str::from_utf8(&hex).ok().filter(|h| h.bytes().all(|b| b.is_ascii_hexdigit()));
            hex.and_then(|h| u8::from_str_radix(h, 16).ok())
                .ok_or("a `%` must be followed by two hex digits")?
        } else {
            byte
        };
        match decoded {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                normal.push(char::from(decoded))
            }
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' | b':' | b'@'
                if byte != b'%' =>
            {
                normal.push(char::from(decoded));
            }
            0..=0x20 | 0x7f if byte != b'%' => return Err("it may not contain spaces or control characters"),
            other => normal.push_str(&format!("%{other:02X}")),
        }
    }
    Ok(normal)
}

impl TryFrom<String> for ObjectId {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<ObjectId> for String {
    fn from(id: ObjectId) -> Self {
        id.0.as_ref().to_owned()
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ids_are_normalised_once() {
        for (text, normal, file) in [
            ("https://startups.studio", "https://startups.studio", "startups.studio"),
            ("HTTPS://Startups.Studio:443/", "https://startups.studio", "startups.studio"),
            ("https://crm.headless.ly/acme", "https://crm.headless.ly/acme", "crm.headless.ly~acme"),
            ("https://a.b:8443/X%7e_y", "https://a.b:8443/X~_y", "a.b_3a8443~_58_7e_5fy"),
            ("https://a.b/caf\u{e9}", "https://a.b/caf%C3%A9", "a.b~caf_25_433_25_419"),
            ("https://a.b/a%2fb", "https://a.b/a%2Fb", "a.b~a_252_46b"),
        ] {
            let id: ObjectId = text.parse().unwrap();
            assert_eq!((id.as_str(), id.file_name().as_str()), (normal, file), "{text}");
            assert_eq!(ObjectId::parse_short(id.short()).unwrap(), id);
        }
    }

    #[test]
    fn what_is_not_an_absolute_https_url_is_refused_with_a_reason() {
        let long = format!("https://a.b/{}", "x".repeat(FILE_NAME_BYTES_MAX));
        for text in [
            "",
            "acme",
            "http://a.b",
            "https://",
            "https:///x",
            "https://a.b//x",
            "https://a.b/../x",
            "https://u@a.b",
            "https://a.b?x",
            "https://a.b/x#y",
            "https://a.b:0",
            "https://a.b:x",
            "https://a..b",
            "https://-a.b",
            "https://a b",
            "https://a.b/x y",
            "https://a.b/%zz",
            "https://a.b/%2",
            "https://a.b/%2e%2e/x",
            &long,
        ] {
            assert!(matches!(text.parse::<ObjectId>(), Err(Error::ObjectId { .. })), "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_file_name_is_injective_and_the_normal_form_is_a_fixed_point(
            a in "https://[a-c]{1,3}(\\.[a-c]{1,2})?(:[1-9][0-9]{0,3})?(/[a-cA-C%~_.+]{1,4}){0,3}/?",
            b in "https://[a-c]{1,3}(\\.[a-c]{1,2})?(:[1-9][0-9]{0,3})?(/[a-cA-C%~_.+]{1,4}){0,3}/?",
        ) {
            if let (Ok(a), Ok(b)) = (a.parse::<ObjectId>(), b.parse::<ObjectId>()) {
                prop_assert_eq!(a == b, a.file_name().to_lowercase() == b.file_name().to_lowercase());
                prop_assert_eq!(a.as_str().parse::<ObjectId>().unwrap(), a);
            }
        }
    }
}
