//! `labelgate_fuzz::model` for libFuzzer.
#![no_main]

use labelgate::model::Model;
use libfuzzer_sys::Corpus;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| -> Corpus {
    if serde_json::from_slice::<Model>(bytes).is_err() {
        return Corpus::Reject; // more of these would teach the fuzzer JSON and nothing else
    }
    labelgate_fuzz::model::check(bytes);
    Corpus::Keep
});
