//! The statements that begin, end and mark transactions, by their words.
//! Must not know what a session does with them. Source: PostgreSQL's grammar, `TransactionStmt`.

use super::words::Words;
use super::{Kind, RouteError, TransactionModes};

/// BEGIN or START TRANSACTION, the first word taken.
pub(super) fn begin(words: &mut Words<'_>) -> Result<Kind, RouteError> {
    noise(words);
    let modes = modes(words)?;
    words.end(Kind::Begin(modes))
}

/// START TRANSACTION, the first word taken.
pub(super) fn start(words: &mut Words<'_>) -> Result<Kind, RouteError> {
    if !words.eat("transaction") {
        return Err(words.syntax_error());
    }
    let modes = modes(words)?;
    words.end(Kind::Begin(modes))
}

/// COMMIT or END, the first word taken.
pub(super) fn commit(words: &mut Words<'_>) -> Result<Kind, RouteError> {
    noise(words);
    let chain = chain(words)?;
    words.end(Kind::Commit { chain })
}

/// ROLLBACK or ABORT, the first word taken; only ROLLBACK has TO.
pub(super) fn rollback(words: &mut Words<'_>, may_name: bool) -> Result<Kind, RouteError> {
    noise(words);
    if may_name && words.eat("to") {
        let name = savepoint_name(words)?;
        return words.end(Kind::RollbackTo(name));
    }
    let chain = chain(words)?;
    words.end(Kind::Rollback { chain })
}

/// SAVEPOINT name, the first word taken.
pub(super) fn savepoint(words: &mut Words<'_>) -> Result<Kind, RouteError> {
    let name = words.name().ok_or_else(|| words.syntax_error())?;
    words.end(Kind::Savepoint(name))
}

/// RELEASE [SAVEPOINT] name, the first word taken.
pub(super) fn release(words: &mut Words<'_>) -> Result<Kind, RouteError> {
    let name = savepoint_name(words)?;
    words.end(Kind::Release(name))
}

/// `[SAVEPOINT] name`, where the name itself may be `savepoint`.
fn savepoint_name(words: &mut Words<'_>) -> Result<String, RouteError> {
    let mut ahead = words.clone();
    if ahead.eat("savepoint") && !ahead.is_done() {
        *words = ahead;
    }
    words.name().ok_or_else(|| words.syntax_error())
}

fn noise(words: &mut Words<'_>) {
    words.eat_any(&["work", "transaction"]);
}

fn chain(words: &mut Words<'_>) -> Result<bool, RouteError> {
    if !words.eat("and") {
        return Ok(false);
    }
    let chain = !words.eat("no");
    if words.eat("chain") { Ok(chain) } else { Err(words.syntax_error()) }
}

/// Transaction modes up to the end, commas between them or not. Of two that contradict each other the later wins.
pub(super) fn modes(words: &mut Words<'_>) -> Result<TransactionModes, RouteError> {
    let mut all = TransactionModes::default();
    while !words.is_done() {
        let one = mode(words)?;
        all = all.overlaid(&one);
        if words.eat_symbol(b',') && words.is_done() {
            return Err(words.syntax_error());
        }
    }
    Ok(all)
}

fn mode(words: &mut Words<'_>) -> Result<TransactionModes, RouteError> {
    let mut modes = TransactionModes::default();
    if words.eat_all(&["isolation", "level"]) {
        modes.isolation = Some(level(words)?);
    } else if words.eat_all(&["read", "only"]) {
        modes.read_only = Some(true);
    } else if words.eat_all(&["read", "write"]) {
        modes.read_only = Some(false);
    } else if words.eat("deferrable") {
        modes.deferrable = Some(true);
    } else if words.eat_all(&["not", "deferrable"]) {
        modes.deferrable = Some(false);
    } else {
        return Err(words.syntax_error());
    }
    Ok(modes)
}

fn level(words: &mut Words<'_>) -> Result<&'static str, RouteError> {
    if words.eat("serializable") {
        Ok("SERIALIZABLE")
    } else if words.eat_all(&["repeatable", "read"]) {
        Ok("REPEATABLE READ")
    } else if words.eat_all(&["read", "committed"]) {
        Ok("READ COMMITTED")
    } else if words.eat_all(&["read", "uncommitted"]) {
        Ok("READ UNCOMMITTED")
    } else {
        Err(words.syntax_error())
    }
}
