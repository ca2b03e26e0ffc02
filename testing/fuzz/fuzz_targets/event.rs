//! See `baton_hostile::event`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| baton_hostile::event(data));
