/// Text from a database, safe to print in one line of a terminal: control characters are written out, and of long
/// text the begin is shown.
pub(crate) fn brief(text: &str, chars_max: usize) -> String {
    let mut out = String::new();
    for (index, char) in text.chars().enumerate() {
        if index == chars_max {
            out.push('…');
            break;
        }
        if char.is_control() || is_invisible(char) {
            out.extend(char.escape_default());
        } else {
            out.push(char);
        }
    }
    out
}

/// Characters that reorder or hide what stands beside them.
const fn is_invisible(char: char) -> bool {
    matches!(char, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// `1 row`, `2 rows`.
pub(crate) fn plural(count: impl TryInto<u64>, noun: &str) -> String {
    let count = count.try_into().unwrap_or(u64::MAX);
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_a_database_cannot_steer_the_terminal() {
        for (text, shown) in [
            ("plain", "plain"),
            ("a\nb", "a\\nb"),
            ("\u{1b}[2J", "\\u{1b}[2J"),
            ("x\u{9b}1m", "x\\u{9b}1m"),
            ("a\u{202e}b", "a\\u{202e}b"),
            ("Grüße 日本", "Grüße 日本"),
            ("0123456789abc", "0123456789…"),
        ] {
            assert_eq!(brief(text, 10), shown);
        }
    }
}
