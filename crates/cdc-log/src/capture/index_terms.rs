//! Takes the text of a CREATE INDEX statement apart, for indexes on expressions and partial indexes.

/// What a CREATE INDEX statement says behind its table's name.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct IndexText {
    /// The texts of the indexed terms, without trailing ASC or DESC.
    pub(crate) terms: Vec<String>,
    /// The condition of a partial index.
    pub(crate) predicate: Option<String>,
}

impl IndexText {
    /// Reads a statement as SQLite stores it. Nothing is found in a text that is not a CREATE INDEX.
    pub(crate) fn parse(create_index: &str) -> Self {
        let mut parts = Parts::default();
        let mut chars = create_index.chars().peekable();
        while let Some(char) = chars.next() {
            match (char, chars.peek()) {
                ('\'' | '"' | '`' | '[', _) => {
                    let close = if char == '[' { ']' } else { char };
                    parts.push(char);
                    for inner in chars.by_ref() {
                        parts.push(inner);
                        if inner == close {
                            break;
                        }
                    }
                }
                ('-', Some('-')) => {
                    chars.by_ref().find(|char| *char == '\n');
                    parts.push(' ');
                }
                ('/', Some('*')) => {
                    let mut last = ' ';
                    chars.next();
                    chars.by_ref().find(|char| std::mem::replace(&mut last, *char) == '*' && *char == '/');
                    parts.push(' ');
                }
                _ => parts.take(char),
            }
        }
        parts.finish()
    }
}

/// Where the reader is: before the terms (depth 0), in them, or behind them.
#[derive(Default)]
struct Parts {
    depth: u32,
    behind: bool,
    term: String,
    terms: Vec<String>,
    tail: String,
}

impl Parts {
    fn push(&mut self, char: char) {
        if self.behind {
            self.tail.push(char);
        } else if self.depth > 0 {
            self.term.push(char);
        }
    }

    fn take(&mut self, char: char) {
        if self.behind {
            return self.tail.push(char);
        }
        match (char, self.depth) {
            ('(', 0) => self.depth = 1,
            (')', 1) => {
                self.terms.push(std::mem::take(&mut self.term));
                (self.depth, self.behind) = (0, true);
            }
            (',', 1) => self.terms.push(std::mem::take(&mut self.term)),
            ('(' | ')', depth) => {
                self.depth = if char == '(' { depth + 1 } else { depth.saturating_sub(1) };
                self.push(char);
            }
            _ => self.push(char),
        }
    }

    fn finish(self) -> IndexText {
        let tail = self.tail.trim();
        let (head, rest) = tail.split_at_checked("where".len()).unwrap_or_default();
        let predicate = head.eq_ignore_ascii_case("where").then(|| rest.trim().to_owned());
        let terms = self.terms.iter().map(|term| without_order(term.trim())).collect();
        IndexText { terms, predicate }
    }
}

fn without_order(term: &str) -> String {
    for order in ["asc", "desc"] {
        let at = term.len().saturating_sub(order.len());
        if let (Some(head), Some(tail)) = (term.get(..at), term.get(at..))
            && tail.eq_ignore_ascii_case(order)
            && head.ends_with(|char: char| char.is_whitespace() || char == ')')
        {
            return head.trim_end().to_owned();
        }
    }
    term.to_owned()
}

/// An indexed expression or the condition of a partial index.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Expression {
    tokens: Vec<Token>,
    /// Whether affinities and collations of its columns may matter.
    pub(crate) compares: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    /// A name, a keyword, or a string (which can be a name).
    Name(String),
    Dot,
    /// Operators, numbers and space.
    Other(String),
}

/// The operators and functions made of letters to which affinities or collations matter.
const COMPARING: [&str; 9] = ["in", "between", "case", "is", "isnull", "notnull", "nullif", "min", "max"];

impl Expression {
    pub(crate) fn parse(text: &str) -> Self {
        let mut tokens = Vec::new();
        let mut rest = text;
        while let Some((token, behind)) = next_token(rest) {
            tokens.push(token);
            rest = behind;
        }
        let compares = |token: &Token| match token {
            Token::Name(name) => COMPARING.iter().any(|word| name.eq_ignore_ascii_case(word)),
            Token::Dot => false,
            Token::Other(text) => text.contains(['=', '<', '>']),
        };
        Self { compares: tokens.iter().any(compares), tokens }
    }

    /// Its text, with columns that were qualified by their table qualified by `row`.
    pub(crate) fn over(&self, row: &str) -> String {
        let mut out = String::new();
        let mut tokens = self.tokens.iter().peekable();
        while let Some(token) = tokens.next() {
            match token {
                Token::Name(_) if tokens.peek() == Some(&&Token::Dot) => {
                    let mut column = token;
                    while tokens.next_if_eq(&&Token::Dot).is_some() {
                        column = tokens.next().unwrap_or(column);
                    }
                    out.push_str(row);
                    out.push('.');
                    out.push_str(column.text());
                }
                Token::Name(_) | Token::Dot | Token::Other(_) => out.push_str(token.text()),
            }
        }
        out
    }
}

impl Token {
    fn text(&self) -> &str {
        match self {
            Self::Name(text) | Self::Other(text) => text,
            Self::Dot => ".",
        }
    }
}

/// The first token of a text and what is behind it. Space around a dot is part of the dot.
fn next_token(text: &str) -> Option<(Token, &str)> {
    let first = text.chars().next()?;
    let cut = |end: usize| text.split_at_checked(end).unwrap_or((text, ""));
    let while_true = |is: fn(char) -> bool| cut(text.find(|char| !is(char)).unwrap_or(text.len()));
    let dot = text.trim_start().strip_prefix('.');
    if let Some(behind) = dot.filter(|behind| !behind.starts_with(|char: char| char.is_ascii_digit())) {
        return Some((Token::Dot, behind.trim_start()));
    }
    Some(match first {
        '\'' | '"' | '`' | '[' => {
            let (name, behind) = cut(quoted_end(text, if first == '[' { ']' } else { first }));
            (Token::Name(name.to_owned()), behind)
        }
        _ if first.is_ascii_digit() || first == '.' => {
            let (number, behind) = while_true(|char| is_of_name(char) || char == '.');
            (Token::Other(number.to_owned()), behind)
        }
        _ if is_of_name(first) => {
            let (name, behind) = while_true(is_of_name);
            (Token::Name(name.to_owned()), behind)
        }
        '-' if text.starts_with("->") => {
            // Takes a value out of JSON. As its own token it is not taken for a comparison.
            let (_, behind) = cut(if text.starts_with("->>") { 3 } else { 2 });
            (Token::Name(text.strip_suffix(behind).unwrap_or(text).to_owned()), behind)
        }
        _ => {
            let (other, behind) = cut(first.len_utf8());
            (Token::Other(other.to_owned()), behind)
        }
    })
}

const fn is_of_name(char: char) -> bool {
    char.is_ascii_alphanumeric() || matches!(char, '_' | '$') || !char.is_ascii()
}

/// Where a quoted name or string ends; a doubled quote is part of it.
fn quoted_end(text: &str, close: char) -> usize {
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, char)) = chars.next() {
        if char == close && (close == ']' || chars.next_if(|(_, next)| *next == close).is_none()) {
            return at + close.len_utf8();
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_terms_and_the_condition_of_an_index_are_taken_apart() {
        for (text, terms, predicate) in [
            ("CREATE UNIQUE INDEX i ON t(a)", &["a"][..], None),
            ("CREATE UNIQUE INDEX i ON t(lower(a), b DESC)", &["lower(a)", "b"], None),
            (
                "CREATE UNIQUE INDEX \"i(x\" ON \"t(,)\" (coalesce(a, ','), (b || ')')asc) WHERE c > (1)",
                &["coalesce(a, ',')", "(b || ')')"],
                Some("c > (1)"),
            ),
            (
                "CREATE UNIQUE INDEX i ON [t(] (\"a,b\" , -- (x\n c COLLATE NOCASE)where[a] /* ) */ = ')' -- x",
                &["\"a,b\"", "c COLLATE NOCASE"],
                Some("[a]   = ')'"),
            ),
            ("CREATE UNIQUE INDEX i ON t('it''s' || a /* ,( */)", &["'it''s' || a"], None),
            ("", &[], None),
        ] {
            let found = IndexText::parse(text);
            assert_eq!(found.terms, terms, "{text}");
            assert_eq!(found.predicate.as_deref(), predicate, "{text}");
        }
    }

    #[test]
    fn columns_qualified_by_their_table_are_qualified_by_the_row_and_comparisons_are_told() {
        for (text, over, compares) in [
            ("t.a > 0", "r.a > 0", true),
            ("main . \"t\" .[a b] || '.'", "r.[a b] || '.'", false),
            ("lower('t'.'a') || t.\"a\"\"b\"", "lower(r.'a') || r.\"a\"\"b\"", false),
            ("a * 1.5 + .5e3 + x'00'", "a * 1.5 + .5e3 + x'00'", false),
            ("'it''s'.a || 'b'", "r.a || 'b'", false),
            ("t.a->>'$.x' || a -> 'y'", "r.a->>'$.x' || a -> 'y'", false),
            ("a In (1)", "a In (1)", true),
            ("nullif(a, 'x')", "nullif(a, 'x')", true),
            ("'=<>' || a", "'=<>' || a", false),
            ("ä.ö", "r.ö", false),
            ("'open", "'open", false),
            ("t.", "r.t", false),
            ("", "", false),
        ] {
            let found = Expression::parse(text);
            assert_eq!((found.over("r").as_str(), found.compares), (over, compares), "{text}");
        }
    }
}
