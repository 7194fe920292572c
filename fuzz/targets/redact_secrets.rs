//! A secret, in each of the forms that `redact` promises to know, behind and before any other text: nothing of it is shown.
#![no_main]

use headcount::redact;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

/// Is in every secret, and nowhere else.
const MARK: &str = "hunter2";

#[derive(Arbitrary, Debug)]
enum Form {
    /// `--password=…`
    Option,
    /// `--password …`
    OptionAndValue,
    /// `PASSWORD=…`
    Assignment,
    /// `--env=PASSWORD=…`
    AssignmentInOption,
    /// `-u user:…`
    User,
    /// `postgres://user:…@host/path`
    Address,
    /// `… http://host/?token=…&more`
    Query,
    /// `…; PASSWORD=… more`
    AssignmentInText,
    /// `… PASSWORD='…' more`
    Quoted,
    /// `… password: …`
    Header,
    /// `… password:…`
    HeaderWithoutSpace,
    /// `… {"password": "…"}`
    Json,
    /// `… Authorization: Bearer …`
    Bearer,
    /// `… ghp_…`
    KnownToken,
}

#[derive(Arbitrary, Debug)]
struct Secret<'a> {
    form: Form,
    name: u8,
    before: Vec<&'a str>,
    text_before: &'a str,
    prefix: &'a str,
    suffix: &'a str,
    text_after: &'a str,
    after: Vec<&'a str>,
}

const NAMES: &[&str] = &[
    "password",
    "PGPASSWORD",
    "apiKey",
    "AWS_SECRET_ACCESS_KEY",
    "auth-token",
    "MYSQL_PWD",
    "client_secret",
];

/// What may stand in a secret within a text: nothing that would end a word there.
fn word(text: &str) -> String {
    text.chars().filter(|c| c.is_alphanumeric() || "-_.+~!$%*^:=@".contains(*c)).collect()
}

fuzz_target!(|secret: Secret<'_>| {
    let name = NAMES[usize::from(secret.name) % NAMES.len()];
    let (before, after) = (secret.text_before, secret.text_after);
    let whole = format!("{}{MARK}{}", secret.prefix, secret.suffix);
    let part = format!("{}{MARK}{}", word(secret.prefix), word(secret.suffix));
    let given: Vec<String> = match secret.form {
        Form::Option => vec![format!("--{name}={whole}")],
        // The next option is no value: so it says.
        Form::OptionAndValue if whole.starts_with("--") => return,
        Form::OptionAndValue => vec![format!("--{name}"), whole],
        Form::Assignment => vec![format!("{name}={whole}")],
        Form::AssignmentInOption => vec![format!("--env={name}={whole}")],
        Form::User => vec!["-u".to_owned(), format!("user:{whole}")],
        // The host begins behind the last `@`.
        Form::Address => {
            vec![format!("{before} postgres://user:{part},;&=()@host/{}", word(after).replace('@', ""))]
        }
        Form::Query => vec![format!("{before} http://host/?a=b&{name}={part}&{after}")],
        Form::AssignmentInText => vec![format!("{before}; {name}={part} {after}")],
        Form::Header | Form::Bearer if part.starts_with("--") => return,
        // Which quotes are a pair would be anybody's guess if there were others before; and they end at the next.
        Form::Quoted | Form::Json if before.contains(['\'', '"']) => return,
        Form::Quoted => vec![format!("{before}; {name}='{}' {after}", whole.replace('\'', ""))],
        Form::HeaderWithoutSpace if part.starts_with([':', '/']) => return,
        Form::HeaderWithoutSpace => vec![format!("{before} {name}:{part} {after}")],
        Form::Header => vec![format!("{before} {name}: {part} {after}")],
        Form::Json => {
            let value = serde_json::to_string(&whole).unwrap();
            vec![format!("{before} {{\"{name}\": {value}}} {after}")]
        }
        Form::Bearer => vec![format!("{before} Authorization: Bearer {part} {after}")],
        Form::KnownToken => vec![format!("{before} ghp_0123456789{part} {after}")],
    };
    let around = secret.before.iter().chain(&secret.after).copied().chain([before, after]);
    if around.into_iter().any(|text| text.contains(MARK)) {
        return;
    }
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let arguments = [owned(&secret.before), given, owned(&secret.after)].concat();
    let shown = redact::arguments(&arguments);
    assert!(!shown.iter().any(|argument| argument.contains(MARK)), "{arguments:?} shows {shown:?}");
});
