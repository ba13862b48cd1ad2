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
}
