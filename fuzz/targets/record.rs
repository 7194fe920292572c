//! Any bytes as a run's record: what is understood has the schema and a run's identity, and survives being written.
#![no_main]

use headcount_sys::state::{Record, RunId, SCHEMA};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|content: &[u8]| match Record::parse(content) {
    Ok(record) => {
        assert_eq!(record.schema, SCHEMA);
        assert_eq!(RunId::parse(record.run_id.as_str().as_bytes()).as_ref(), Some(&record.run_id));
        // Identities are compared, and signals sent by them: no number that the kernel uses for groups.
        assert!(record.host.pid.as_raw() > 0);
        let written = serde_json::to_vec(&record).unwrap();
        assert_eq!(Record::parse(&written), Ok(record));
    }
    Err(reason) => assert!(!reason.is_empty()),
});
