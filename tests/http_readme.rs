//! The session in the README, section "Over HTTP", as it stands there, against real servers.

#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod common;

use common::{Changes, Front};
use tokio::process::Command;

const README: &str = include_str!("../README.md");

/// Commands and what they must say.
fn session() -> Vec<(String, String)> {
    let section = README.split("\n## Over HTTP\n").nth(1).unwrap();
    let block = section.split("```console\n").nth(1).unwrap().split("```").next().unwrap();
    let mut steps: Vec<(String, String)> = Vec::new();
    let mut in_command = false;
    for line in block.lines() {
        if let Some(command) = line.strip_prefix("$ ") {
            steps.push((command.to_owned(), String::new()));
            in_command = true;
        } else if let Some((command, said)) = steps.last_mut() {
            // What continues a command is indented.
            in_command &= line.starts_with("    ");
            let text = if in_command { command } else { said };
            if in_command || !text.is_empty() {
                text.push('\n');
            }
            text.push_str(line);
        }
    }
    steps
}

/// Whether a text is as it should be, with anything at each `…`.
fn is_like(text: &str, want: &str) -> bool {
    let mut parts = want.split('…');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let parts: Vec<_> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[test]
fn likeness_is_exact_but_for_the_gaps() {
    assert!(is_like("a1b", "a…b") && is_like("ab", "ab") && is_like("a1b2c3", "a…b…c…"));
    assert!(!is_like("a1bc", "a…b") && !is_like("abc", "ab") && !is_like("xa1b", "a…b"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_session_in_the_readme_is_what_happens() {
    let front = Front::demo(1, Changes { http: "user = \"admin\"", ..Changes::default() }).await;
    let steps = session();
    assert!(steps.len() >= 10, "{steps:?}");
    for (command, want) in steps {
        // Reads are from replicas.
        front.herd.caught_up().await;
        let command = command.replace("127.0.0.1:3000", &format!("127.0.0.1:{}", front.http().port));
        let run = Command::new("sh").args(["-c", &command]).output().await.unwrap();
        let said = String::from_utf8(run.stdout).unwrap();
        let said = said.trim_end();
        assert!(is_like(said, &want), "$ {command}\n{said}\nthe README says:\n{want}");
    }
}
