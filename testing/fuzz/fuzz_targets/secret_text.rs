//! See `baton_hostile::secret_text`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| baton_hostile::secret_text(data));
