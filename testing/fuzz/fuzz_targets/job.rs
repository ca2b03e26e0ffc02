//! See `baton_hostile::job`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| baton_hostile::job(data));
