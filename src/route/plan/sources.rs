//! What the bodies of users' functions name: tables that the statement reads or writes without naming them.
//! Must not know syntax; a body is taken as a bag of words.

use std::collections::BTreeSet;

use super::analysis::Analysis;
use crate::catalog::Volatility;
use crate::route::lex::{Lexer, TokenKind};
use crate::shard::Placement;

impl Analysis<'_> {
    /// Notes the tables that functions called by the statement name in their bodies.
    pub(super) fn function_bodies(&mut self) {
        let mut seen = BTreeSet::new();
        let mut todo: Vec<String> = self.survey.calls.iter().map(|c| c.name.clone()).collect();
        while let Some(name) = todo.pop() {
            if !seen.insert(name.clone()) {
                continue;
            }
            let catalog = self.ctx.catalog;
            let Some(function) = catalog.functions.get(&name).filter(|f| f.is_user && !f.source.is_empty())
            else {
                continue;
            };
            for word in words(&function.source) {
                self.named_in_body(&name, &word, function.volatility);
                if catalog.functions.get(&word).is_some_and(|f| f.is_user) {
                    todo.push(word);
                }
            }
        }
    }

    fn named_in_body(&mut self, function: &str, word: &str, volatility: Volatility) {
        let map = self.ctx.map;
        let mut known = false;
        for (table, placement) in map.tables.iter().filter(|(t, _)| t.name == word) {
            known = true;
            match placement {
                Placement::Sharded(_) => self.refuse(
                    format!("function \"{function}\", which names sharded table \"{}\"", table.name),
                    "A function sees one shard only: force it with /* pgherd: shard=name */, or query the table \
                     itself.",
                ),
                Placement::Reference if volatility == Volatility::Volatile => self.refuse(
                    format!("function \"{function}\", which may write reference table \"{}\"", table.name),
                    "Declare the function STABLE if it only reads, or force a shard with /* pgherd: shard=name */.",
                ),
                Placement::Reference => {}
                Placement::Single(shard) => self.pins.push((*shard, format!("function \"{function}\""))),
            }
        }
        let in_catalog = !known && self.ctx.catalog.relations.keys().any(|(_, name)| name == word);
        if in_catalog {
            self.pins.push((map.default_shard, format!("function \"{function}\"")));
        }
    }
}

/// Every identifier in a body, also inside nested string bodies.
fn words(source: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    collect(source, &mut found, 3);
    found
}

fn collect(source: &str, found: &mut BTreeSet<String>, depth: u8) {
    for token in Lexer::new(source.as_bytes(), false) {
        let Some(text) = source.get(token.start..token.end) else { continue };
        match token.kind {
            TokenKind::Word => {
                found.insert(text.to_ascii_lowercase());
            }
            TokenKind::Quoted | TokenKind::UnicodeQuoted => {
                found.insert(text.trim_matches('"').replace("\"\"", "\""));
            }
            // EXECUTE 'select … from users': the text inside is SQL too, as far as anyone can tell.
            TokenKind::Literal(_) if depth > 0 => {
                collect(text.trim_matches(|c: char| !c.is_alphanumeric() && c != '_'), found, depth - 1);
            }
            TokenKind::Literal(_)
            | TokenKind::Param
            | TokenKind::Operator
            | TokenKind::Symbol(_)
            | TokenKind::Comment
            | TokenKind::Unterminated(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_body_are_found_wherever_they_stand() {
        let found = words(
            "select * from Users u join \"Odd\" on true; execute 'delete from orders where x = ''countries'''",
        );
        for want in ["users", "Odd", "orders", "countries"] {
            assert!(found.contains(want), "{want} in {found:?}");
        }
    }
}
