//! `labelgate_fuzz::packet` for libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| labelgate_fuzz::packet::check(bytes));
