//! The kernel that the environment names.

use candle_tcn::kernels::Kernel;
use candle_tcn::{Error, Result};

/// The variable that names a kernel.
const VARIABLE: &str = "TCN_KERNEL";

/// The kernel that the variable names, where it is set; otherwise the fastest.
pub fn from_environment() -> Result<Kernel> {
    let Ok(name) = std::env::var(VARIABLE) else {
        return Ok(Kernel::best());
    };
    let kernel = name.parse::<Kernel>().and_then(Kernel::available);
    kernel.map_err(|error| match error {
        Error::Invalid { expected, found, .. } => Error::invalid(VARIABLE, expected, found),
        other => other,
    })
}

/// As [`from_environment`], for all that runs once the program has refused a wrong name.
pub fn chosen() -> Kernel {
    from_environment().unwrap_or_else(|_| Kernel::best())
}
