//! `labelgate_fuzz::capture` for libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| labelgate_fuzz::capture::check(bytes));
