//! Fuzz targets for every decoder of strongroom. A target is one line that calls a body
//! `fuzz_NAME` beside the decoder, in the crate that owns it; `.ci/fuzz-targets` writes targets and
//! manifest entries from the bodies. `corpus/NAME/` holds a few small seeds, replayed by the tests.
//! Nothing else lives here.
