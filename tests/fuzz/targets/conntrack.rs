//! `labelgate_fuzz::conntrack` for libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| labelgate_fuzz::conntrack::check(bytes));
