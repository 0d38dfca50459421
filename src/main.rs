//! The `pgherd` binary: only calls the library.

fn main() -> std::process::ExitCode {
    pgherd::cli::main()
}
