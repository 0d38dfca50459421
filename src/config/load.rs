//! A configuration from a file on disk.
//! Must not know the rules.

use std::path::Path;

use super::check;
use super::error::ConfigErrors;
use super::types::Config;

/// A checked configuration, and what is worth saying about it though it holds.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// One line each, e.g. a password file that others may read.
    pub warnings: Vec<String>,
}

impl Config {
    /// Reads and checks a file; `…_env` keys come from this process's environment.
    ///
    /// Also reads the files that `…_file`, `cert`, `key` and `ca` name; relative paths start at the file's directory.
    ///
    /// # Errors
    /// [`ConfigErrors`] if it cannot be read, or with all that is wrong in it.
    pub fn load(path: impl AsRef<Path>) -> Result<Loaded, ConfigErrors> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(|e| {
            check::of_file(path, format!("cannot be read: {e}"), "create it, or name another file")
        })?;
        Self::parse(&text, path, &|name| std::env::var(name).ok())
    }

    /// Checks a configuration's text. `path` names it in messages and is where relative paths start; `env` looks up
    /// `…_env` keys.
    ///
    /// # Errors
    /// [`ConfigErrors`] with all that is wrong in it: first the syntax, then unknown keys and types, then the rules.
    pub fn parse(
        text: &str,
        path: &Path,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Loaded, ConfigErrors> {
        check::parse(text, path, env)
    }
}
