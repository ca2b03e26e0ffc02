//! See `baton_hostile::sse`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| baton_hostile::sse(data));
