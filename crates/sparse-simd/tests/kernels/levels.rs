//! Which level is used.

use std::ffi::OsStr;

use sparse_simd::{Kernels, Level, LevelError};

#[test]
fn a_forced_level_is_used_or_refused() {
    let best = Level::detect();
    let choose = |word: &str| Kernels::choose(Some(OsStr::new(word)));
    assert_eq!(Kernels::choose(None).unwrap().level(), best);
    assert_eq!(choose("").unwrap().level(), best);
    for level in Level::ALL {
        match Kernels::at(level) {
            Some(_) => assert_eq!(choose(level.name()).unwrap().level(), level),
            None => {
                let error = choose(level.name()).unwrap_err();
                assert_eq!(error, LevelError::Unavailable { level });
                assert_eq!(
                    error.to_string(),
                    format!(
                        "SIMD level {level} is not available: the highest that this CPU and this build have is {best}"
                    )
                );
            }
        }
    }
    assert_eq!(
        choose("AVX3").unwrap_err().to_string(),
        "unknown SIMD level \"AVX3\": expected scalar, sse4.1, avx2, avxvnni, avx512, neon, dotprod, i8mm or simd128"
    );
}

#[test]
fn levels_are_ordered_and_scalar_is_everywhere() {
    assert!(Level::available().is_sorted());
    assert_eq!(Level::available().next(), Some(Level::Scalar));
    assert_eq!(Level::available().last(), Some(Level::detect()));
}
