//! Ctrl-C: the first asks long work to end soon and print what it has, the second ends the process.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::exit;

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// From now on the first Ctrl-C only makes [`requested`] true.
pub(crate) fn handle() -> anyhow::Result<()> {
    ctrlc::set_handler(|| {
        if REQUESTED.swap(true, Ordering::Relaxed) {
            std::process::exit(exit::INTERRUPTED.into());
        }
    })?;
    Ok(())
}

/// From now on Ctrl-C only makes [`take`] true, every time.
#[cfg(feature = "chat")]
pub(crate) fn handle_each() -> anyhow::Result<()> {
    ctrlc::set_handler(|| REQUESTED.store(true, Ordering::Relaxed))?;
    Ok(())
}

/// Whether Ctrl-C was pressed since the last call.
#[cfg(feature = "chat")]
pub(crate) fn take() -> bool {
    REQUESTED.swap(false, Ordering::Relaxed)
}

/// Whether Ctrl-C was pressed.
pub(crate) fn requested() -> bool {
    REQUESTED.load(Ordering::Relaxed)
}
