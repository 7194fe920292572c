//! Any bytes as a token: only 32 digits are a run; and whatever a run is nested in, it is the innermost.
#![no_main]

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

use headcount_sys::state::RunId;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|value: &[u8]| {
    if let Some(run) = RunId::parse(value) {
        assert_eq!(run.as_str().as_bytes(), value);
        assert!(value.len() == 32 && value.iter().all(|b| b"0123456789abcdef".contains(b)));
    }
    if let Some(run) = RunId::innermost(value) {
        assert!(run.is_in(value) && value.ends_with(run.as_str().as_bytes()));
    }
    let own = RunId::parse(b"00112233445566778899aabbccddeeff").unwrap();
    let nested = own.token(Some(OsString::from_vec(value.to_vec()))).into_vec();
    assert!(own.is_in(&nested));
    assert_eq!(RunId::innermost(&nested), Some(own));
    if let Some(outer) = RunId::innermost(value) {
        assert!(outer.is_in(&nested));
    }
});
