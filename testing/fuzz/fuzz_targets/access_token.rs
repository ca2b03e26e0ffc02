//! See `baton_hostile::access_token`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| baton_hostile::access_token(data));
