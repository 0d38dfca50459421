//! The statement files: blocks between empty lines, each a statement under lines that say what is expected.
//! Must not know how statements are run.

/// What the proxy must do with a statement.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Expected {
    /// Nothing said: the answer of one server, an error's SQLSTATE and message included.
    Same,
    /// `-- same code`: an error of the same SQLSTATE in other words.
    SameCode,
    /// `-- fails: CODE substring`: an error of the proxy's own, where one server would answer.
    Fails(String, String),
    /// `-- refused: substring`: 0A000 and a hint.
    Refused(String),
}

/// One statement.
#[derive(Debug, Clone)]
pub(super) struct Block {
    /// The number of its first line.
    pub(super) line: usize,
    /// What the proxy is sent.
    pub(super) sql: String,
    /// `-- plain: …`: what one server is sent instead.
    pub(super) plain: String,
    /// What must come of it.
    pub(super) expected: Expected,
    /// `-- params: a | NULL | {x,y}`: values of its parameters as text; it is then not run over the simple protocol.
    pub(super) params: Option<Vec<Option<String>>>,
    /// `-- simple`: cannot be prepared (several statements), or keeps the session's state.
    pub(super) simple_only: bool,
    /// `-- extended`: not over the simple protocol.
    pub(super) extended_only: bool,
    /// `-- spread`: over several shards, so that it is refused inside a transaction.
    pub(super) spread: bool,
}

impl Block {
    /// Whether tables must be compared after it.
    pub(super) fn writes(&self) -> bool {
        let words = self.sql.to_lowercase();
        let mut words = words.split(|c: char| !c.is_alphanumeric() && c != '_');
        words.any(|word| matches!(word, "insert" | "update" | "delete" | "truncate" | "merge"))
    }

    /// Whether ORDER BY fixes the order of its rows.
    pub(super) fn is_ordered(&self) -> bool {
        let sql = self.sql.to_lowercase();
        let at = sql.rfind("order by");
        at.is_some_and(|at| !sql.get(at..).unwrap_or_default().contains(')'))
    }
}

/// All blocks of a file; lines with `#` are remarks.
pub(super) fn parse(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines: Vec<(usize, &str)> = Vec::new();
    for (i, line) in text.lines().chain([""]).enumerate() {
        if line.starts_with('#') {
            continue;
        }
        if !line.is_empty() {
            lines.push((i + 1, line));
        } else if !lines.is_empty() {
            blocks.push(block(&lines));
            lines.clear();
        }
    }
    blocks
}

fn block(lines: &[(usize, &str)]) -> Block {
    let (mut expected, mut params, mut plain) = (Expected::Same, None, None);
    let (mut simple_only, mut extended_only, mut spread) = (false, false, false);
    let mut sql = Vec::new();
    for (_, line) in lines {
        if *line == "-- same code" {
            expected = Expected::SameCode;
        } else if let Some(what) = line.strip_prefix("-- refused: ") {
            expected = Expected::Refused(what.to_owned());
        } else if let Some(what) = line.strip_prefix("-- fails: ") {
            let (code, what) = what.split_once(' ').unwrap_or((what, ""));
            expected = Expected::Fails(code.to_owned(), what.to_owned());
        } else if let Some(values) = line.strip_prefix("-- params: ") {
            let value = |text: &str| Some(text.to_owned()).filter(|text| text != "NULL");
            params = Some(values.split(" | ").map(value).collect());
        } else if let Some(other) = line.strip_prefix("-- plain: ") {
            plain = Some(other.to_owned());
        } else if *line == "-- simple" {
            simple_only = true;
        } else if *line == "-- extended" {
            extended_only = true;
        } else if *line == "-- spread" {
            spread = true;
        } else {
            sql.push(*line);
        }
    }
    let sql = sql.join("\n");
    let line = lines[0].0;
    assert!(!sql.is_empty(), "line {line}: no statement");
    Block {
        line,
        plain: plain.unwrap_or_else(|| sql.clone()),
        sql,
        expected,
        params,
        simple_only,
        extended_only,
        spread,
    }
}
