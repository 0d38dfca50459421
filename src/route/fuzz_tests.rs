//! Any text through lexer, templates, parser and router: it never panics, and what the caches say of a text is what a
//! router says that has never seen any.
//! Must not know single forms of SQL.

use proptest::prelude::*;

use super::fixture::{one_shard, three_shards};
use super::lex::{Lexer, TokenKind};
use super::{Env, Param, Router};
use crate::wire::fuzzing::fuzz;

/// All that is found out about a text: its statements, what they are, where they go.
fn found(router: &Router, text: &[u8], env: &Env) -> Vec<String> {
    let values = [Some(&b"a"[..]), Some(b"42"), None];
    let param = |value| Param { value, binary: false, type_oid: 0 };
    let bound: Vec<_> = values.into_iter().map(param).collect();
    let statements = match router.prepare(text, env) {
        Ok(statements) => statements,
        Err(error) => return vec![format!("{error:?}")],
    };
    let say = |s: &super::Statement| {
        let routes = [&[][..], &bound].map(|params| s.route(router, text, params, env));
        let set = s.configured(&bound);
        format!(
            "{:?} {:?} {:?} {} {routes:?} {set:?} {:?}",
            s.span,
            s.kind(),
            s.verb(),
            s.fingerprint().text(),
            s.home()
        )
    };
    statements.iter().map(say).collect()
}

fn environments() -> [Env; 4] {
    [
        Env::default(),
        Env { nonstandard_strings: true, ..Env::default() },
        Env { search_path: Some(vec!["other".into(), "public".into()]), ..Env::default() },
        Env { foreign_encoding: true, key: Some("a".into()), ..Env::default() },
    ]
}

#[test]
fn what_the_caches_say_of_a_text_is_what_a_router_says_that_never_saw_one() {
    // They have seen thousands of other texts when the last ones come.
    let known = [three_shards(), one_shard()];
    fuzz("sql", 1500, |base, input, numbers| {
        let env = &numbers[0].get(&environments()).clone();
        for (known, fresh) in known.iter().zip([three_shards as fn() -> Router, one_shard]) {
            found(known, base, env);
            let want = found(&fresh(), input, env);
            prop_assert_eq!(&found(known, input, env), &want, "beside others");
            prop_assert_eq!(&found(known, input, env), &want, "when it is known");
            let alone = fresh();
            found(&alone, base, env);
            prop_assert_eq!(&found(&alone, input, env), &want, "after the text that it was made of");
        }
        Ok(())
    });
}

/// An error of the parser quotes the text and counts its lines: it is not another spelling's.
#[test]
fn an_error_is_that_of_the_very_text() {
    let env = Env::default();
    let known = three_shards();
    for text in
        ["TABLE users", "tABLE users", "  TABLE\n users", "/* a */ TABLE users", "TABLE users; SELECT 1"]
    {
        let want = found(&three_shards(), text.as_bytes(), &env);
        for _ in 0..2 {
            assert_eq!(found(&known, text.as_bytes(), &env), want, "{text}");
        }
    }
}

#[test]
fn what_comments_say_is_nothing() {
    let env = Env::default();
    for text in ["SELECT.", "DO 'BEGIN END'", "TABLE users", "LOAD 'x'"] {
        for comment in
            ["/*( pgherd: shard=shard2 */ ", "/* set_config('a', 'b', false) lastval() */ ", "-- nextval(\n"]
        {
            let commented = format!("{comment}{text}");
            for (first, then) in [(text, commented.as_str()), (commented.as_str(), text)] {
                let known = three_shards();
                found(&known, first.as_bytes(), &env);
                let want = found(&three_shards(), then.as_bytes(), &env);
                assert_eq!(found(&known, then.as_bytes(), &env), want, "{then:?} after {first:?}");
            }
        }
    }
}

#[test]
fn tokens_cover_a_text_in_order_and_end_where_the_next_begins() {
    fuzz("sql", 3000, |_, input, _| {
        for nonstandard in [false, true] {
            let mut at = 0;
            for token in Lexer::new(input, nonstandard) {
                prop_assert!(token.start >= at && token.end > token.start && token.end <= input.len());
                let blank = |b: &u8| b.is_ascii_whitespace() || *b == 0x0b;
                prop_assert!(input[at..token.start].iter().all(blank), "only blanks are left out");
                at = token.end;
                if let TokenKind::Unterminated(_) = token.kind {
                    prop_assert_eq!(at, input.len());
                }
            }
        }
        Ok(())
    });
}
