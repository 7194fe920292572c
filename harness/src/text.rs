//! Bytes that a process chose, made fit for a report.

/// Text for machines, from which the bytes can be had back: a backslash is doubled, a byte that is not part of valid UTF-8
/// is written `\xNN`. All else, control characters included, stays as it is.
#[must_use]
pub fn reversible(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            text.push(character);
            if character == '\\' {
                text.push('\\');
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

/// Text for a terminal: whatever would move the cursor or change colours is shown as an escape.
#[must_use]
pub fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        // Marks that reorder what stands beside them, and line ends that are no control characters.
        let misleads = matches!(
            character,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        );
        if character.is_control() || misleads {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// A command line as a shell would take it, cut to about `limit` characters.
#[must_use]
pub fn command_line(arguments: &[String], limit: usize) -> String {
    let mut line = String::new();
    for argument in arguments {
        if !line.is_empty() {
            line.push(' ');
        }
        let plain = |c: char| c.is_alphanumeric() || "_-+=./:,@%^[]*~".contains(c);
        if !argument.is_empty() && argument.chars().all(plain) {
            line.push_str(argument);
        } else {
            line.push('\'');
            line.push_str(&printable(argument).replace('\'', "'\\''"));
            line.push('\'');
        }
        if line.chars().count() > limit {
            let mut cut: String = line.chars().take(limit).collect();
            cut.push('…');
            return cut;
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn back(text: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut rest = text.as_bytes();
        while let Some((first, after)) = rest.split_first() {
            match (first, after) {
                (b'\\', [b'\\', tail @ ..]) => {
                    bytes.push(b'\\');
                    rest = tail;
                }
                (b'\\', [b'x', a, b, tail @ ..]) => {
                    let digits = [*a, *b];
                    bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap());
                    rest = tail;
                }
                _ => {
                    bytes.push(*first);
                    rest = after;
                }
            }
        }
        bytes
    }

    proptest! {
        #[test]
        fn every_byte_can_be_had_back(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            prop_assert_eq!(back(&reversible(&bytes)), bytes);
        }
    }

    #[test]
    fn a_terminal_is_not_moved() {
        assert_eq!(printable("a\x1b[2Jb\n\u{202e}"), "a\\u{1b}[2Jb\\n\\u{202e}");
    }

    #[test]
    fn command_lines_are_quoted_and_cut() {
        let line = |words: &[&str], limit| {
            command_line(&words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>(), limit)
        };
        assert_eq!(line(&["sh", "-c", "sleep 5 &", ""], 80), "sh -c 'sleep 5 &' ''");
        assert_eq!(line(&["aaaa", "bbbb"], 6), "aaaa b…");
    }
}
