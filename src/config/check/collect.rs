//! What every check needs: collecting findings with their lines, and the checks of a single key.
//! Must not know which keys there are.

use std::fs::{File, Metadata};
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;

use super::super::error::{ConfigError, ConfigErrors};
use super::super::load::Loaded;
use super::super::raw::Field;
use super::super::shape::did_you_mean;
use super::super::types::Config;
use super::Env;

/// A place in the text, in bytes.
pub(super) type At = Range<usize>;

/// A year: longer waits are no waits, and the sum of a clock and a longer one may overflow.
const LONGEST_MS: u64 = 365 * 24 * 3600 * 1000;

/// The text under check and what was found so far.
pub(super) struct Checker<'a> {
    text: &'a str,
    path: &'a Path,
    env: Env<'a>,
    errors: Vec<ConfigError>,
    warnings: Vec<String>,
}

impl<'a> Checker<'a> {
    pub(super) fn new(text: &'a str, path: &'a Path, env: Env<'a>) -> Self {
        Self { text, path, env, errors: Vec::new(), warnings: Vec::new() }
    }

    pub(super) fn path(&self) -> &Path {
        self.path
    }

    pub(super) fn env(&self, name: &str) -> Option<String> {
        (self.env)(name)
    }

    /// A path of the file, which is relative to the file's directory.
    pub(super) fn resolve(&self, path: &str) -> PathBuf {
        self.path.parent().unwrap_or_else(|| Path::new("")).join(path)
    }

    pub(super) fn error(&mut self, at: &At, key: &str, what: impl Into<String>, remedy: impl Into<String>) {
        self.error_at(at, Some(key.to_owned()), what, remedy);
    }

    pub(super) fn error_at(
        &mut self,
        at: &At,
        key: Option<String>,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        let (what, remedy) = (what.into(), remedy.into());
        let line = Some(self.line(at));
        self.errors.push(ConfigError { file: self.path.to_owned(), line, key, what, remedy });
    }

    /// A finding about something that is not there at all.
    pub(super) fn missing(&mut self, key: &str, what: &str, remedy: &str) {
        let (file, key) = (self.path.to_owned(), Some(key.to_owned()));
        self.errors.push(ConfigError { file, line: None, key, what: what.into(), remedy: remedy.into() });
    }

    pub(super) fn warn(&mut self, at: &At, key: &str, what: &str) {
        self.warnings.push(format!("{}:{}: {key}: {what}", self.path.display(), self.line(at)));
    }

    fn line(&self, at: &At) -> usize {
        let before = self.text.as_bytes().get(..at.start).unwrap_or(self.text.as_bytes());
        1 + memchr::memchr_iter(b'\n', before).count()
    }

    pub(super) fn finish(self, config: Config) -> Result<Loaded, ConfigErrors> {
        if self.errors.is_empty() {
            return Ok(Loaded { config, warnings: self.warnings });
        }
        Err(self.into_errors())
    }

    pub(super) fn into_errors(mut self) -> ConfigErrors {
        self.errors.sort_by_key(|e| e.line);
        ConfigErrors(self.errors)
    }

    /// A whole number within bounds, or the default.
    pub(super) fn number(
        &mut self,
        field: Option<&Spanned<u64>>,
        key: &str,
        range: RangeInclusive<u64>,
        default: u64,
    ) -> u64 {
        let Some(field) = field else { return default };
        let n = *field.get_ref();
        if range.contains(&n) {
            return n;
        }
        let (low, high) = range.into_inner();
        let (what, remedy) = if n < low {
            (format!("must be at least {low}"), format!("raise it, or leave the key out for {default}"))
        } else {
            (format!("must be at most {high}"), format!("lower it, or leave the key out for {default}"))
        };
        self.error(&field.span(), key, what, remedy);
        default
    }

    /// A time in milliseconds, at least 1.
    pub(super) fn millis(&mut self, field: Option<&Spanned<u64>>, key: &str, default: Duration) -> Duration {
        let default = u64::try_from(default.as_millis()).unwrap_or(LONGEST_MS);
        Duration::from_millis(self.number(field, key, 1..=LONGEST_MS, default))
    }

    /// A time in milliseconds; 0 is no end.
    pub(super) fn millis_or_never(
        &mut self,
        field: Option<&Spanned<u64>>,
        key: &str,
        default: u64,
    ) -> Option<Duration> {
        let ms = self.number(field, key, 0..=LONGEST_MS, default);
        (ms > 0).then(|| Duration::from_millis(ms))
    }

    /// One of several words, or the default.
    pub(super) fn choice<T: Copy>(
        &mut self,
        field: Option<&Spanned<String>>,
        key: &str,
        words: &[(&str, T)],
        default: T,
    ) -> T {
        let Some(field) = field else { return default };
        let word = field.get_ref();
        if let Some((_, value)) = words.iter().find(|(w, _)| w == word) {
            return *value;
        }
        let remedy = did_you_mean(word, words.iter().map(|(w, _)| *w));
        self.error(&field.span(), key, format!("\"{word}\" is not a choice"), remedy);
        default
    }

    /// A name that must be there; what is missing or empty is reported and comes back empty.
    pub(super) fn name(&mut self, field: &Field<String>, table: &At, key: &str) -> String {
        match field {
            None => {
                self.error(table, key, "is missing", "add it to this table");
                String::new()
            }
            Some(name) if name.get_ref().is_empty() || name.get_ref().contains('\0') => {
                self.error(&name.span(), key, "is empty", "give a name");
                String::new()
            }
            Some(name) => name.get_ref().clone(),
        }
    }

    /// A name that must be there, and not twice among `seen`.
    pub(super) fn unique_name(
        &mut self,
        field: &Field<String>,
        table: &At,
        key: &str,
        seen: &mut Vec<String>,
    ) -> String {
        let name = self.name(field, table, key);
        if !name.is_empty() && seen.contains(&name) {
            let at = field.as_ref().map_or_else(|| table.clone(), Spanned::span);
            self.error(&at, key, format!("\"{name}\" is there twice"), "rename or remove one of the two");
        }
        seen.push(name.clone());
        name
    }

    /// The position of a name in a list, or a finding that says which names there are.
    pub(super) fn position(
        &mut self,
        name: &Spanned<String>,
        key: &str,
        kind: &str,
        names: &[String],
    ) -> Option<usize> {
        let found = names.iter().position(|n| n == name.get_ref());
        if found.is_none() {
            let remedy = did_you_mean(name.get_ref(), names.iter().map(String::as_str));
            self.error(&name.span(), key, format!("there is no {kind} \"{}\"", name.get_ref()), remedy);
        }
        found
    }

    /// A path to a file that can be opened now, with what the file system says of it.
    pub(super) fn readable(&mut self, field: &Spanned<String>, key: &str) -> Option<(PathBuf, Metadata)> {
        let path = self.resolve(field.get_ref());
        match File::open(&path).and_then(|file| file.metadata()) {
            Ok(meta) if meta.is_file() => Some((path, meta)),
            Ok(_) => {
                self.error(&field.span(), key, format!("{} is not a file", path.display()), "name a file");
                None
            }
            Err(e) => {
                let what = format!("cannot read {}: {e}", path.display());
                self.error(
                    &field.span(),
                    key,
                    what,
                    "check the path (relative ones start at this file) and its permissions",
                );
                None
            }
        }
    }

    /// Warns when others than the owner may read a file that holds a secret.
    pub(super) fn warn_if_open(&mut self, path: &Path, meta: &Metadata, at: &At, key: &str) {
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = meta.permissions().mode() & 0o777;
            if mode & 0o044 != 0 {
                let what =
                    format!("{} can be read by others (mode {mode:03o}); chmod 600 it", path.display());
                self.warn(at, key, &what);
            }
        }
        #[cfg(not(unix))]
        let _ = (path, meta, at, key);
    }
}
