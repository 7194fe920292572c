//! Keeps what looks like a secret out of reports.
//!
//! **Guarantees:** the value of an option, assignment or query parameter whose name says password, token, secret, key or
//! credential is replaced, as is the password in an address and anything with a well-known token's prefix.
//! **Cannot know:** a secret that looks like nothing, `-p1234`, or a file's name that is itself secret. Environments are
//! never printed at all, but for the test's name.

/// What stands in place of a secret.
pub const REDACTED: &str = "[redacted]";

/// Redacts a command line, argument by argument; an option's value may be the next argument.
#[must_use]
pub fn arguments(arguments: &[String]) -> Vec<String> {
    let mut redacted = Vec::with_capacity(arguments.len());
    let mut value_follows = false;
    let mut is_user = false;
    for argument in arguments {
        // `--password --verbose`: the next option is no value.
        redacted.push(if value_follows && !argument.starts_with("--") {
            REDACTED.to_owned()
        } else {
            argument_redacted(argument, is_user)
        });
        // What looks like an option may be the value of the one before, and the other way round: both count.
        value_follows = is_option(argument) && is_secret_name(argument);
        // `curl -u user:password`
        is_user = matches!(argument.as_str(), "-u" | "--user" | "--proxy-user");
    }
    redacted
}

fn argument_redacted(argument: &str, is_user: bool) -> String {
    let user_end = argument.find(':').filter(|_| is_user).unwrap_or(argument.len());
    // The value of a whole argument ends where the argument does, whatever it holds: `--password=…`, `--env=PASSWORD=…`.
    let mut start = 0;
    for (at, _) in argument[..user_end].match_indices('=') {
        let name = &argument[start..at];
        let is_value = name.split_once(':').is_some_and(|(name, _)| is_secret_name(name));
        if is_value || name.contains(is_delimiter) || name.contains('/') {
            break;
        }
        start = at + 1;
        if start < argument.len() && is_secret_name(name) {
            return format!("{}{REDACTED}", &argument[..start]);
        }
    }
    if user_end < argument.len() {
        return format!("{}:{REDACTED}", &argument[..user_end]);
    }
    text(argument)
}

/// Redacts free text, such as a script, a header or an address.
#[must_use]
pub fn text(text: &str) -> String {
    // Addresses first: a password in one may hold what ends a word elsewhere.
    words_redacted(&addresses_redacted(text))
}

fn words_redacted(text: &str) -> String {
    let mut redacted = String::with_capacity(text.len());
    let mut value_follows = false;
    let mut was_secret_name = false;
    let mut unclosed: Vec<char> = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (word, after) = rest.split_at(rest.find(is_delimiter).unwrap_or(rest.len()));
        rest = after;
        if !word.is_empty() {
            let names_value;
            if value_follows && is_scheme(word) {
                // `Authorization: Bearer …`: the word after the next.
                redacted.push_str(word);
                names_value = true;
            } else if value_follows && !word.starts_with("--") {
                redacted.push_str(REDACTED);
                // `Authorization: Token token="…"`: a value that itself names one.
                names_value = word.ends_with(['=', ':']) || (is_option(word) && is_secret_name(word));
            } else {
                let (shown, is_cut) = word_redacted(word);
                redacted.push_str(&shown);
                // `--password …`, `PASSWORD='…'`, `password: …`, `"password": "…"`, `Bearer …`
                names_value = is_cut
                    || is_scheme(word)
                    || (is_option(word) && is_secret_name(word))
                    || word
                        .strip_suffix(['=', ':'])
                        .is_some_and(|name| was_secret_name || is_secret_name(name));
            }
            value_follows = names_value;
            was_secret_name = is_secret_name(word);
        }
        let Some(delimiter) = rest.chars().next() else { break };
        redacted.push(delimiter);
        rest = &rest[delimiter.len_utf8()..];
        // `password: "…"`: what is quoted may hold spaces.
        if value_follows && matches!(delimiter, '\'' | '"') && !unclosed.contains(&delimiter) {
            let Some(end) = closing(rest, delimiter) else {
                // Not searched for again, or the work would grow with the square of the text.
                unclosed.push(delimiter);
                continue;
            };
            if end > 0 {
                redacted.push_str(REDACTED);
            }
            redacted.push(delimiter);
            rest = &rest[end + 1..];
            // A shell joins what follows without a space: `PASSWORD='…'"…"`.
            value_follows = rest.starts_with(|next| !is_delimiter(next) || matches!(next, '\'' | '"'));
        }
    }
    redacted
}

/// Where a quoted value ends. Within double quotes, a backslash takes the next character's meaning away.
fn closing(text: &str, quote: char) -> Option<usize> {
    let mut is_escaped = false;
    text.char_indices().find_map(|(at, character)| {
        if character == quote && !is_escaped {
            return Some(at);
        }
        is_escaped = quote == '"' && character == '\\' && !is_escaped;
        None
    })
}

/// The words that stand between `Authorization:` and what it authorises with.
fn is_scheme(word: &str) -> bool {
    ["bearer", "basic", "token"].iter().any(|scheme| word.eq_ignore_ascii_case(scheme))
}

fn is_delimiter(character: char) -> bool {
    character.is_whitespace()
        || matches!(character, '&' | ';' | '?' | ',' | '\'' | '"' | '|' | '(' | ')' | '{' | '}')
}

fn is_option(word: &str) -> bool {
    word.starts_with('-') && !word.contains('=')
}

/// A word without the secrets in it, and whether it says that the next one is a secret.
fn word_redacted(word: &str) -> (String, bool) {
    if word.contains("-----BEGIN") {
        return (REDACTED.to_owned(), false);
    }
    if is_known_token(word) {
        return (REDACTED.to_owned(), false);
    }
    // `a=b=c` is a name, a name and a value: `--env=TOKEN=…`.
    let mut start = 0;
    let mut has_colon = false;
    // The host of an address, and its port, are no name and value.
    let host = word.find("://").map_or(0..0, |scheme| {
        let begin = scheme + 3;
        begin..word[begin..].find(['/', '#']).map_or(word.len(), |end| begin + end)
    });
    for (at, separator) in word.match_indices(['=', ':']) {
        let value = &word[at + 1..];
        if host.contains(&at) || value.is_empty() {
            continue;
        }
        if at >= host.end {
            start = start.max(host.end);
        }
        let name = &word[start..at];
        let is_assigned = if separator == "=" {
            (start, has_colon) = (at + 1, false);
            true
        } else {
            // `password:hunter2`, but not `https://…`, `test_auth.py:12` and `auth::token`.
            let is_first = !std::mem::replace(&mut has_colon, true);
            let is_name = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
            is_first && !value.starts_with([':', '/']) && name.chars().all(is_name)
        };
        if is_known_token(value) || (is_assigned && is_secret_name(name)) {
            // `Authorization:Bearer …`
            return (format!("{}{REDACTED}", &word[..=at]), is_scheme(value));
        }
    }
    (word.to_owned(), false)
}

/// `scheme://user:password@host` loses its password; a known token, or what is long enough for one, loses everything.
fn addresses_redacted(text: &str) -> String {
    let mut redacted = String::with_capacity(text.len());
    let mut rest = text;
    // Up to where there is no `@`, counted from the end, so that no word is searched again for each address in it.
    let mut searched = usize::MAX;
    while let Some(scheme) = rest.find("://") {
        let (before, authority) = rest.split_at(scheme + 3);
        redacted.push_str(before);
        rest = authority;
        let ends = |c: char| c.is_whitespace() || matches!(c, '/' | '#' | '?' | '"' | '\'' | '|' | '{' | '}');
        let end = authority.find(ends).unwrap_or(authority.len());
        // A password may itself hold an `@`.
        let mut at = authority[..end].rfind('@');
        if at.is_none() && authority.len() < searched {
            let word = &authority[..authority.find(is_delimiter).unwrap_or(authority.len())];
            at = word.rfind('@');
            searched = authority.len() - word.len();
        }
        if let Some(at) = at {
            let user_info = &authority[..at];
            match user_info.split_once(':') {
                Some((user, _)) => {
                    redacted.push_str(user);
                    redacted.push(':');
                    redacted.push_str(REDACTED);
                }
                // A user's name is short; what stands alone and is long is a token.
                None if is_known_token(user_info) || user_info.len() >= 20 => redacted.push_str(REDACTED),
                None => redacted.push_str(user_info),
            }
            rest = &authority[at..];
        }
    }
    redacted.push_str(rest);
    redacted
}

/// Words that make a name a secret's.
const SECRET_WORDS: &[&str] = &[
    "password",
    "passwd",
    "passphrase",
    "secret",
    "secrets",
    "token",
    "apikey",
    "credential",
    "credentials",
    "authorization",
    "auth",
    "pass",
    "pw",
    "privatekey",
    "accesskey",
    "secretkey",
    "signature",
];
/// Words that make it the name of something else about one: a file that holds it, its length.
const OTHER_WORDS: &[&str] =
    &["file", "path", "dir", "folder", "name", "type", "url", "length", "count", "ttl", "id"];
/// Words that are a secret's name only together with `key`.
const KEY_WORDS: &[&str] =
    &["api", "access", "private", "secret", "signing", "encryption", "master", "session"];

/// Whether a name, in any of the usual spellings, is a secret's.
fn is_secret_name(name: &str) -> bool {
    let parts = name_parts(name);
    let last = parts.last().map(String::as_str).unwrap_or_default();
    if OTHER_WORDS.contains(&last) {
        return false;
    }
    let glued = parts.concat();
    parts.iter().any(|part| SECRET_WORDS.contains(&part.as_str()))
        || (last == "key" && parts.iter().any(|part| KEY_WORDS.contains(&part.as_str())))
        || ["password", "passwd", "apikey", "secret", "token", "sshpass"].iter().any(|word| glued.ends_with(word))
        // `MYSQL_PWD`, but not the working folder's `PWD` and `OLDPWD`.
        || (last == "pwd" && parts.len() > 1)
}

/// `--apiKey`, `API_KEY` and `api.key` are all `api`, `key`.
fn name_parts(name: &str) -> Vec<String> {
    let mut parts: Vec<String> = vec![String::new()];
    let mut before = ' ';
    for character in name.chars() {
        if !character.is_alphanumeric() || (character.is_uppercase() && before.is_lowercase()) {
            parts.push(String::new());
        }
        if character.is_alphanumeric()
            && let Some(part) = parts.last_mut()
        {
            part.extend(character.to_lowercase());
        }
        before = character;
    }
    parts.retain(|part| !part.is_empty());
    parts
}

/// Prefixes by which services mark their tokens, and the least length of one.
const TOKEN_PREFIXES: &[(&str, usize)] = &[
    ("ghp_", 20),
    ("gho_", 20),
    ("ghu_", 20),
    ("ghs_", 20),
    ("ghr_", 20),
    ("github_pat_", 20),
    ("glpat-", 16),
    ("sk-", 16),
    ("sk_live_", 16),
    ("sk_test_", 16),
    ("rk_live_", 16),
    ("xoxb-", 16),
    ("xoxp-", 16),
    ("xoxa-", 16),
    ("AKIA", 20),
    ("ASIA", 20),
    ("AIza", 30),
    ("npm_", 20),
    ("pypi-", 20),
    ("hf_", 20),
    ("dop_v1_", 20),
    ("eyJ", 40),
];

fn is_known_token(word: &str) -> bool {
    TOKEN_PREFIXES.iter().any(|(prefix, least)| word.starts_with(prefix) && word.len() >= *least)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(words: &[&str]) -> String {
        arguments(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>()).join(" ")
    }

    #[test]
    fn values_of_secret_names_are_gone_in_every_spelling() {
        for (given, expected) in [
            (&["x", "--password=hunter2"][..], "x --password=[redacted]"),
            (&["x", "--password", "hunter2", "-v"], "x --password [redacted] -v"),
            (&["x", "--api-key", "hunter2"], "x --api-key [redacted]"),
            (&["x", "--apiKey=hunter2"], "x --apiKey=[redacted]"),
            (&["x", "AWS_SECRET_ACCESS_KEY=hunter2"], "x AWS_SECRET_ACCESS_KEY=[redacted]"),
            (&["x", "PGPASSWORD=hunter2"], "x PGPASSWORD=[redacted]"),
            (
                &["sh", "-c", "TOKEN='hunter2' run --secret hunter2; next"],
                // A whole argument that begins like one assignment: where its value ends is anybody's guess.
                "sh -c TOKEN=[redacted]",
            ),
            (&["x", "{\"password\": \"hunter2\", \"a\": 1}"], "x {\"password\": \"[redacted]\", \"a\": 1}"),
            (
                &["sh", "-c", "a; TOKEN='hunter2' run --secret hunter2; next"],
                "sh -c a; TOKEN='[redacted]' run --secret [redacted]; next",
            ),
            (&["x", "password: hunter2"], "x password: [redacted]"),
            (&["x", "--password=correct,hunter2 and more"], "x --password=[redacted]"),
            (&["x", "PGPASSWORD=hun&hunter2"], "x PGPASSWORD=[redacted]"),
            (&["x", "MYSQL_PWD=hunter2", "SSHPASS=hunter2"], "x MYSQL_PWD=[redacted] SSHPASS=[redacted]"),
            (&["x", "-Dtoken=hunter2", "--authtoken=hunter2"], "x -Dtoken=[redacted] --authtoken=[redacted]"),
            (&["x", "X-Api-Key: hunter2"], "x X-Api-Key: [redacted]"),
            (&["x", "Authorization: token hunter2"], "x Authorization: token [redacted]"),
            (&["curl", "-u", "me:hunter2"], "curl -u me:[redacted]"),
            (&["x", "https://0123456789hunter2abcdef@h/"], "x https://[redacted]@h/"),
            (&["x", "secret:hunter2"], "x secret:[redacted]"),
            (&["x", "http://h/?token=hunter2&a=b"], "x http://h/?token=[redacted]&a=b"),
            (&["x", "postgres://u:hunter2@h/db"], "x postgres://u:[redacted]@h/db"),
            (&["x", "--dsn=postgres://u:hunt@er2@h/db"], "x --dsn=postgres://u:[redacted]@h/db"),
            (&["curl", "-H", "Authorization: Bearer hunter2"], "curl -H Authorization: Bearer [redacted]"),
            (&["x", "ghp_0123456789abcdef0123"], "x [redacted]"),
            // Found by the fuzzer, or on the way to what it found.
            (&["x", "eyJhdXRocyI6eyJodW50ZXIyIjoiaHVudGVyMiJ9hunter2=="], "x [redacted]"),
            (&["x", "me:ghp_0123456789hunter2"], "x me:[redacted]"),
            (&["x", "postgres://u:pa=hunter2@h/db"], "x postgres://u:[redacted]@h/db"),
            (&["x", "postgres://u:pa&ss;hunter2,(x)@h/db"], "x postgres://u:[redacted]@h/db"),
            (&["x", "http://a/,postgres://u:hunter2@h/db"], "x http://a/,postgres://u:[redacted]@h/db"),
            (&["x", "--env=API_TOKEN=hunter2, hunter2"], "x --env=API_TOKEN=[redacted]"),
            (&["x", "a --env=API_TOKEN=hunter2 b"], "x a --env=API_TOKEN=[redacted] b"),
            (&["x", "password:hunter2=="], "x password:[redacted]"),
            (&["x", "--arg=password:hunter2"], "x --arg=password:[redacted]"),
            (&["x", "Authorization:Bearer hunter2"], "x Authorization:[redacted] [redacted]"),
            (&["x", "a secret: token: hunter2"], "x a secret: [redacted] [redacted]"),
            (
                &["x", "Authorization: Token token=\"hunter2\", a"],
                "x Authorization: Token [redacted]\"[redacted]\", a",
            ),
            (&["x", "a; PASSWORD='correct hunter2 staple' b"], "x a; PASSWORD='[redacted]' b"),
            (
                &["x", "{\"password\": \"a\\\" hunter2\", \"a\": 1}"],
                "x {\"password\": \"[redacted]\", \"a\": 1}",
            ),
            (&["x", "a; PASSWORD=''\"hunter2 x\" b"], "x a; PASSWORD=''\"[redacted]\" b"),
            (&["x", "-pass", "-token", "hunter2"], "x -pass [redacted] [redacted]"),
            (&["x", "-pass", "-u", "me:hunter2"], "x -pass [redacted] me:[redacted]"),
            (&["curl", "-u", "--password=hunter2:x"], "curl -u --password=[redacted]"),
        ] {
            let shown = line(given);
            assert!(!shown.contains("hunter2") && !shown.contains("er2@"), "{given:?} shows {shown}");
            assert!(shown.starts_with(expected) || shown == expected, "{given:?} shows {shown}");
        }
    }

    #[test]
    fn what_is_no_secret_stays() {
        for plain in [
            &["pytest", "-q", "--max-tokens=100", "tests/test_auth.py::test_token"][..],
            &["ssh", "git@host:repo"],
            &["env", "PWD=/srv", "OLDPWD=/"],
            &["x", "--token-file", "/run/token", "--key", "value"],
            &["python3", "-m", "http.server", "--bind=127.0.0.1"],
            &["x", "https://host/path@1.2"],
            &["x", "--password", "--verbose"],
            &["x", "http://auth:8080/a=b", "--url=http://token.test/x=1", "a; PASSWORD='' b", "a://b://c"],
        ] {
            assert_eq!(line(plain), plain.join(" "));
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(words in proptest::collection::vec(".*", 0..5)) {
            drop(arguments(&words));
        }
    }
}
