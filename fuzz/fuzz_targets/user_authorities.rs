#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| edd_control::compute::fuzzing::user_authorities(bytes));
