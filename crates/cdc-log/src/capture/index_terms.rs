//! Takes the terms of a CREATE INDEX statement apart, for indexes on expressions.

/// The texts of the indexed terms, without trailing ASC or DESC. Empty when the text is not a CREATE INDEX.
pub(crate) fn index_terms(create_index: &str) -> Vec<String> {
    let mut terms = Vec::new();
    let mut term = String::new();
    let mut depth = 0_u32;
    let mut chars = create_index.chars().peekable();
    while let Some(char) = chars.next() {
        let close = match char {
            '\'' | '"' | '`' => Some(char),
            '[' => Some(']'),
            _ => None,
        };
        if let Some(close) = close {
            let mut quote = String::from(char);
            for inner in chars.by_ref() {
                quote.push(inner);
                if inner == close {
                    break;
                }
            }
            if depth > 0 {
                term.push_str(&quote);
            }
            continue;
        }
        if char == '-' && chars.peek() == Some(&'-') {
            chars.by_ref().find(|char| *char == '\n');
            term.push(' ');
            continue;
        }
        match char {
            '(' if depth == 0 => depth = 1,
            ')' if depth == 1 => break,
            ',' if depth == 1 => terms.push(std::mem::take(&mut term)),
            _ => {
                match char {
                    '(' => depth += 1,
                    ')' => depth = depth.saturating_sub(1),
                    _ => {}
                }
                if depth > 0 {
                    term.push(char);
                }
            }
        }
    }
    if depth > 0 {
        terms.push(term);
    }
    terms.iter().map(|term| without_order(term.trim())).collect()
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
    fn the_terms_of_an_index_are_taken_apart() {
        for (text, terms) in [
            ("CREATE UNIQUE INDEX i ON t(a)", &["a"][..]),
            ("CREATE UNIQUE INDEX i ON t(lower(a), b DESC)", &["lower(a)", "b"]),
            (
                "CREATE UNIQUE INDEX \"i(x\" ON \"t(,)\" (coalesce(a, ','), (b || ')')asc) WHERE c > (1)",
                &["coalesce(a, ',')", "(b || ')')"],
            ),
            (
                "CREATE UNIQUE INDEX i ON [t(] (\"a,b\" , -- (x\n c COLLATE NOCASE)",
                &["\"a,b\"", "c COLLATE NOCASE"],
            ),
            ("CREATE UNIQUE INDEX i ON t('it''s' || a)", &["'it''s' || a"]),
            ("", &[]),
        ] {
            assert_eq!(index_terms(text), terms, "{text}");
        }
    }
}
