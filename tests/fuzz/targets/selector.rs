//! `labelgate_fuzz::selector` for libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| labelgate_fuzz::selector::check(bytes));
