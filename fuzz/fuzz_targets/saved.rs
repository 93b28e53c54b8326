#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| calico_accountant_fuzz::saved(data));
