#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| edd_control::compute::fuzzing::session_frame(bytes));
