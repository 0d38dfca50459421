//! `proxy.toml`: what is accepted and with which defaults, and what is refused with which words.

use std::path::Path;

use pgherd::config::Config;

fn errors(text: &str) -> String {
    match Config::parse(text, Path::new("proxy.toml"), &|_| None) {
        Ok(_) => "accepted".to_owned(),
        Err(errors) => errors.to_string(),
    }
}

#[test]
fn probe() {
    for text in [
        "x = ",
        "[proxy]\nlistn = [\"a\"]\nworkers = \"a\"\nzork=1\n[[user]]\nname = 5\npassword = 1234\n[user.x]\ny=1\n",
        "[user]\nname = 5",
        "user = 5\n",
        "database = [5]\n[proxy]\nlisten = [5]",
        "[[database]]\ncontrol = 5\nname = \"a\"\n[[database.shard]]\nservers = [{ host = \"a\", prt = 5 }, { host = 5}]\n[[database.table]]\nkeys = [{ column = \"a\", bounds = [{ from = true }]}]\n",
        "[[user]]\nname = \"a\"\n\n\n[[database]]\nname = \"b\"\n\n[[database.shard]]\n\n",
        "a = 1\na = 2\n",
        "[proxy]\nworkers = -1\nmax_clients = 99999999999999999999\nplan_cache = 1.5",
    ] {
        println!("--- {text}\n{}", errors(text));
    }
}
