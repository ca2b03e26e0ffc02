//! See `baton_hostile::jwks`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| baton_hostile::jwks(data));
