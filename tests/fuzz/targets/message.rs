//! `labelgate_fuzz::message` for libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| labelgate_fuzz::message::check(bytes));
