#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| edd_gateway::fuzzing::recording(bytes));
