#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| edd_gateway::fuzzing::proxy_header(bytes));
