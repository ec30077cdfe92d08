#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| edd_gateway::fuzzing::ssh_host_key(bytes));
