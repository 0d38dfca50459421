//! The time from when DDL is sent that takes effect at once until the catalogs have been read again: what other sessions run
//! meanwhile may be other code than is known.
//! Must not know statements.

use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Acquire};

use super::topology::Cluster;

/// Until it is dropped the catalogs may be others than those that were read.
#[must_use]
pub struct Flux(Arc<Cluster>);

impl Cluster {
    /// DDL is about to take effect.
    pub fn begin_flux(self: &Arc<Self>) -> Flux {
        self.fluxes.fetch_add(1, AcqRel);
        Flux(self.clone())
    }

    /// Whether the catalogs in force may be out of date.
    #[must_use]
    pub fn is_in_flux(&self) -> bool {
        self.fluxes.load(Acquire) > 0
    }
}

impl Drop for Flux {
    fn drop(&mut self) {
        self.0.fluxes.fetch_sub(1, AcqRel);
    }
}
