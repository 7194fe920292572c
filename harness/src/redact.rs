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
        if value_follows && !argument.starts_with("--") {
            redacted.push(REDACTED.to_owned());
            value_follows = false;
            continue;
        }
        value_follows = is_option(argument) && is_secret_name(argument);
        redacted.push(argument_redacted(argument, is_user));
        // `curl -u user:password`
        is_user = matches!(argument.as_str(), "-u" | "--user" | "--proxy-user");
    }
    redacted
}

fn argument_redacted(argument: &str, is_user: bool) -> String {
    if is_user && let Some((user, _)) = argument.split_once(':') {
        return format!("{user}:{REDACTED}");
    }
    // The value of a whole argument ends where the argument does, whatever it holds.
    match argument.split_once('=') {
        Some((name, value))
            if !value.is_empty()
                && !name.contains(is_delimiter)
                && !name.contains('/')
                && is_secret_name(name) =>
        {
            format!("{name}={REDACTED}")
        }
        _ => text(argument),
    }
}

/// Redacts free text, such as a script, a header or an address.
#[must_use]
pub fn text(text: &str) -> String {
    let mut redacted = String::with_capacity(text.len());
    let mut value_follows = false;
    let mut was_secret_name = false;
    for piece in text.split_inclusive(is_delimiter) {
        let (word, delimiter) = match piece.char_indices().next_back() {
            Some((at, last)) if is_delimiter(last) => piece.split_at(at),
            _ => (piece, ""),
        };
        if word.is_empty() {
            redacted.push_str(delimiter);
            continue;
        }
        if value_follows && is_scheme(word) {
            // `Authorization: Bearer …`: the word after the next.
            redacted.push_str(word);
        } else if value_follows && !word.starts_with("--") {
            redacted.push_str(REDACTED);
            value_follows = false;
        } else {
            redacted.push_str(&word_redacted(word));
            // `--password …`, `PASSWORD='…'`, `password: …`, `"password": "…"`, `Bearer …`
            value_follows = is_scheme(word)
                || (is_option(word) && is_secret_name(word))
                || word.strip_suffix(['=', ':']).is_some_and(|name| was_secret_name || is_secret_name(name));
            was_secret_name = is_secret_name(word);
        }
        redacted.push_str(delimiter);
    }
    redacted
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

fn word_redacted(word: &str) -> String {
    if let Some(at) = word.find('=') {
        let (name, value) = (&word[..at], &word[at + 1..]);
        if !value.is_empty() && is_secret_name(name) {
            return format!("{name}={REDACTED}");
        }
        return format!("{name}={}", address_redacted(value));
    }
    // `password:hunter2`, but not `https://…`, `test_auth.py:12` and `auth::token`.
    if let Some((name, value)) = word.split_once(':')
        && !value.is_empty()
        && !value.starts_with([':', '/'])
        && name.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-')
        && is_secret_name(name)
    {
        return format!("{name}:{REDACTED}");
    }
    address_redacted(word)
}

/// `scheme://user:password@host` loses its password; a known token loses everything.
fn address_redacted(word: &str) -> String {
    if is_known_token(word) {
        return REDACTED.to_owned();
    }
    let Some(scheme) = word.find("://") else { return word.to_owned() };
    let start = scheme + 3;
    let authority = &word[start..];
    let end = authority.find(['/', '#']).unwrap_or(authority.len());
    // A password may itself hold an `@`.
    let Some(at) = authority[..end].rfind('@').or_else(|| authority.rfind('@')) else {
        return word.to_owned();
    };
    let user_info = &authority[..at];
    let kept = match user_info.split_once(':') {
        Some((user, _)) => format!("{user}:{REDACTED}"),
        // A user's name is short; what stands alone and is long is a token.
        None if is_known_token(user_info) || user_info.len() >= 20 => REDACTED.to_owned(),
        None => user_info.to_owned(),
    };
    format!("{}{kept}{}", &word[..start], &authority[at..])
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
    word.contains("-----BEGIN")
        || TOKEN_PREFIXES.iter().any(|(prefix, least)| word.starts_with(prefix) && word.len() >= *least)
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
