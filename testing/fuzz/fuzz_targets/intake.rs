//! See `baton_hostile::intake`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| baton_hostile::intake(data));
