//! The `pgherd` binary: only calls the library.

fn main() {}
