//! See `baton_hostile::model_stream`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| baton_hostile::model_stream(data));
