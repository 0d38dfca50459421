//! The same bytes to the proxy and to one PostgreSQL: what is committed must be the same.
//! Must not know what the bytes are.

use std::time::Duration;

use bytes::BytesMut;
use pgherd::wire::{ErrorFields, next_frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_postgres::Client;

use super::common::{Front, Pg, Raw, rows};

/// Longest time in which a session that got an end of input must be over.
const OVER: Duration = Duration::from_secs(30);

/// The proxy before its one server, and another server that is asked the same.
pub(crate) struct Oracle {
    alone: Pg,
    /// To look at what each has: the proxy's server, the one alone.
    watch: [Client; 2],
}

impl Oracle {
    pub(crate) async fn new(front: &Front, alone: Pg) -> Self {
        let watch = [front.herd.primary(0).connect().await, alone.connect().await];
        Self { alone, watch }
    }

    /// Both are told the same, and that no more will come. What was said is compared by what is then there.
    pub(crate) async fn ask(&self, front: &Front, bytes: &[u8], what: &str) -> bool {
        let (proxy, alone) = tokio::join!(Raw::connect(front), Raw::direct(&self.alone));
        let by_server = say(alone, bytes, 0, what).await;
        // The proxy cancels what runs for a client that says that it will say no more: so it says that last.
        let answers = by_server.iter().filter(|word| word.starts_with('Z')).count();
        let by_proxy = say(proxy, bytes, answers, what).await;
        let look = "select user_id || ': ' || action from audit_log order by 1";
        let (there, wanted) = (rows(&self.watch[0], look).await, rows(&self.watch[1], look).await);
        for watch in &self.watch {
            watch.batch_execute("truncate audit_log").await.unwrap();
        }
        let about = || {
            let shown = bytes.escape_ascii();
            format!(
                "{what}\n{shown}\nthe proxy: {by_proxy:?} {there:?}\nthe server: {by_server:?} {wanted:?}"
            )
        };
        let ((told, rest), (wants, _)) = (split(&by_proxy), split(&by_server));
        let refusal = |word: &String| word == "E 08P01" || word == "E 0A000";
        // It may refuse in its own words what the other refuses.
        let alike = |(a, b): &(&String, &String)| a == b || refusal(a) && b.starts_with('E');
        let same = told.iter().zip(wants).take_while(alike).count();
        if same == told.len() && same == wants.len() && !rest.iter().any(refusal) {
            assert_eq!(there, wanted, "{}", about());
            return true;
        }
        // It may give up sooner, but not in silence, and not having done what the other would not have.
        let mut other = told[same..].iter().chain(rest);
        assert!(other.next().is_some_and(refusal) || rest.iter().any(refusal), "{}", about());
        let mut more = there.clone();
        wanted.iter().for_each(|row| drop(more.iter().position(|r| r == row).map(|at| more.remove(at))));
        assert!(more.is_empty(), "{more:?} would not be on one server: {}", about());
        false
    }
}

/// Says it, and after so many answers that it will say no more; what is answered: errors, ends of statements,
/// ReadyForQuery.
async fn say(mut client: Raw, bytes: &[u8], answers: usize, what: &str) -> Vec<String> {
    let (mut reader, mut writer) = client.stream.split();
    let seen = tokio::sync::Semaphore::new(0);
    let send = async {
        // The other side may close first.
        drop(writer.write_all(bytes).await);
        drop(timeout(OVER / 3, seen.acquire_many(answers as u32)).await);
        drop(writer.shutdown().await);
    };
    let read = async {
        let (mut buf, mut said) = (BytesMut::new(), Vec::new());
        while matches!(reader.read_buf(&mut buf).await, Ok(n) if n > 0) {
            while let Some(frame) = next_frame(&mut buf, 1 << 30).unwrap() {
                let text = || String::from_utf8_lossy(frame.body.strip_suffix(&[0]).unwrap_or(&frame.body));
                match frame.tag {
                    b'E' => said.push(format!("E {}", ErrorFields::parse(&frame.body).unwrap().code)),
                    b'C' | b'Z' => said.push(format!("{} {}", char::from(frame.tag), text())),
                    _ => {}
                }
                seen.add_permits(usize::from(frame.tag == b'Z'));
            }
        }
        seen.close();
        said
    };
    let both = timeout(OVER, async { tokio::join!(send, read) }).await;
    let shown = bytes.escape_ascii();
    both.unwrap_or_else(|_| panic!("the session is not over after {OVER:?}: {what}\n{shown}")).1
}

/// What was said up to the last ReadyForQuery, and after it: that may stay behind in a server.
fn split(said: &[String]) -> (&[String], &[String]) {
    said.split_at(said.iter().rposition(|word| word.starts_with('Z')).map_or(0, |at| at + 1))
}
