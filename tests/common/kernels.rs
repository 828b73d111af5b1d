//! Kernels that tests run; for the tests of the library and those beside it.

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::Mutex;

/// The kernels among `all` that this processor has. The others are named on standard error, each once. Those that
/// `TCN_TEST_KERNELS` names, such as `avx2,avx512`, must be there.
pub fn available<K: Copy>(
    all: impl IntoIterator<Item = K>,
    name: impl Fn(K) -> &'static str,
    is_available: impl Fn(K) -> bool,
) -> Vec<K> {
    let required = std::env::var("TCN_TEST_KERNELS").unwrap_or_default();
    let required: BTreeSet<&str> =
        required.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    let all: Vec<K> = all.into_iter().collect();
    let (there, missing): (Vec<K>, Vec<K>) = all.iter().partition(|&&kernel| is_available(kernel));
    for kernel in missing {
        skipped(name(kernel), required.contains(name(kernel)));
    }
    for wanted in required {
        assert!(
            all.iter().any(|&kernel| name(kernel) == wanted),
            "TCN_TEST_KERNELS: there is no kernel {wanted:?}"
        );
    }
    there
}

fn skipped(name: &'static str, required: bool) {
    assert!(!required, "TCN_TEST_KERNELS wants the kernel {name}, which this processor lacks");
    tell(format!("skipped: kernel {name}, which this processor lacks"));
}

/// Says `message` once, past the capture of the test runner.
pub fn tell(message: String) {
    static TOLD: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let mut told = TOLD.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if !told.contains(&message) {
        let _ = writeln!(std::io::stderr(), "{message}");
        told.insert(message);
    }
}
