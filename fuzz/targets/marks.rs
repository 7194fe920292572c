//! Any environment and any cgroup path, held against a run's marks: the run's own are known, and a longer name is not one.
#![no_main]

use headcount::evidence::Marks;
use headcount_sys::proc;
use headcount_sys::state::RunId;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Given<'a> {
    own: &'a [u8],
    path: &'a [u8],
    environ: &'a [u8],
}

fuzz_target!(|given: Given<'_>| {
    let Given { own, path, environ } = given;
    let run = RunId::parse(b"00112233445566778899aabbccddeeff").unwrap();
    let marks = Marks { cgroup: Some(own.to_vec()), token: Some(run.clone()) };

    assert!(marks.confines(own));
    assert!(marks.confines(&[own, b"/", path].concat()));
    if marks.confines(path) {
        assert!(path.starts_with(own) && !(path.len() > own.len() && path[own.len()] != b'/'));
    }

    let is_named = environ.windows(32).any(|window| window == run.as_str().as_bytes());
    assert!(is_named || !marks.is_on(environ));
    let token = format!("HEADCOUNT_TOKEN={run}");
    let without = environ.strip_suffix(b"\0").unwrap_or(environ);
    assert!(marks.is_on(&[without, b"\0", token.as_bytes(), b"\0"].concat()));
    assert!(marks.is_on(&[token.as_bytes(), b"\0", environ].concat()));

    let nothing = Marks { cgroup: None, token: None };
    assert!(!nothing.confines(path) && !nothing.is_on(environ));
    proc::variables(environ).for_each(drop);
});
