//! What is wrong with a configuration: every finding with its file, line, key and remedy.
//! Must not know TOML or the rules themselves.

use std::fmt;
use std::path::PathBuf;

/// One thing that is wrong. Prints as `proxy.toml:12: pool.size: what is wrong; remedy`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {what}; {remedy}", self.place())]
pub struct ConfigError {
    /// The file.
    pub file: PathBuf,
    /// The line in it, from 1; `None` when it is about the file as a whole.
    pub line: Option<usize>,
    /// The key, with the names of the tables round it, e.g. `database.shard.servers`.
    pub key: Option<String>,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

impl ConfigError {
    fn place(&self) -> String {
        let mut place = self.file.display().to_string();
        if let Some(line) = self.line {
            place.push_str(&format!(":{line}"));
        }
        if let Some(key) = &self.key {
            place.push_str(&format!(": {key}"));
        }
        place
    }
}

/// All that is wrong, in the order of the file; never empty. Prints one finding a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}
