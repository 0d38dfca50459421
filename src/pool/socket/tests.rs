//! Sockets that put off, alone and with others, in clear and through TLS.

use std::future::poll_fn;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::pool::Stream;

async fn pair() -> (Stream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let theirs = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (ours, _) = listener.accept().await.unwrap();
    let ours = Stream::Plain(ours).joint();
    assert!(matches!(ours, Stream::Joint(_)), "the kernel of a machine that tests has io_uring");
    (ours, theirs)
}

async fn soon(stream: &mut Stream, bytes: &[u8]) -> Option<usize> {
    poll_fn(|cx| Poll::Ready(stream.write_soon(bytes, cx).map(Result::unwrap))).await
}

fn is_put_off(stream: &Stream) -> bool {
    let socket = match stream {
        Stream::Joint(socket) => socket,
        Stream::Tls(tls) => tls.get_ref().0,
        Stream::Plain(_) | Stream::Unix(_) => return false,
    };
    socket.write.state.load(Acquire) == PUT_OFF
}

/// Both ends of TLS; ours is joined to the rounds.
async fn tls_pair() -> (Stream, tokio_rustls::client::TlsStream<TcpStream>) {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let own = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
    let server = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key)
        .unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(own.cert.der().clone()).unwrap();
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let theirs = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (ours, _) = listener.accept().await.unwrap();
    let ours = tokio_rustls::TlsAcceptor::from(Arc::new(server)).accept(Socket::new(ours));
    let theirs = tokio_rustls::TlsConnector::from(Arc::new(client))
        .connect(rustls::pki_types::ServerName::try_from("localhost").unwrap(), theirs);
    let (ours, theirs) = tokio::try_join!(ours, theirs).unwrap();
    (Stream::Tls(Box::new(tokio_rustls::TlsStream::Server(ours))).joint(), theirs)
}

#[tokio::test]
async fn what_is_encrypted_is_written_with_the_round_too() {
    let mut pairs = Vec::new();
    for _ in 0..5 {
        pairs.push(tls_pair().await);
    }
    for round in 0..3 {
        for (n, (ours, _)) in pairs.iter_mut().enumerate() {
            assert_eq!(soon(ours, b"x").await, None, "it has to be encrypted");
            ours.write_all(format!("{round}: to {n:04}").as_bytes()).await.unwrap();
        }
        assert!(pairs.iter().all(|(ours, _)| is_put_off(ours)));
        for (n, (_, theirs)) in pairs.iter_mut().enumerate() {
            let mut came = [0; 10];
            theirs.read_exact(&mut came).await.unwrap();
            assert_eq!(came, format!("{round}: to {n:04}").as_bytes());
        }
    }
    let (ours, theirs) = pairs.first_mut().unwrap();
    ours.write_all(b"last").await.unwrap();
    ours.write_all(b" words").await.unwrap();
    ours.flush().await.unwrap();
    assert!(!is_put_off(ours), "flushed is written");
    ours.shutdown().await.unwrap();
    let mut came = String::new();
    theirs.read_to_string(&mut came).await.unwrap();
    assert_eq!(came, "last words");
}

#[tokio::test]
async fn a_peer_that_reads_late_gets_all_that_was_encrypted() {
    let (mut ours, mut theirs) = tls_pair().await;
    let mut wrote = Vec::new();
    // Pieces short and long, until neither the socket nor rustls takes more.
    for piece in (0..).map(|n| (n % 7 + 1) * 1500) {
        let bytes: Vec<u8> = (0..piece).map(|n| (n + wrote.len()) as u8).collect();
        let took = poll_fn(|cx| Poll::Ready(Pin::new(&mut ours).poll_write(cx, &bytes))).await;
        let Poll::Ready(took) = took else { break };
        wrote.extend_from_slice(&bytes[..took.unwrap()]);
        round::end();
    }
    assert!(wrote.len() > 100_000);
    assert!(poll_fn(|cx| Poll::Ready(ours.poll_left(cx))).await.is_pending());
    let mut came = vec![0; wrote.len()];
    let (left, read) = tokio::join!(poll_fn(|cx| ours.poll_left(cx)), theirs.read_exact(&mut came));
    left.unwrap();
    read.unwrap();
    assert!(came == wrote);
}

#[tokio::test]
async fn the_writes_of_a_round_are_made_when_it_ends() {
    let mut pairs = Vec::new();
    for _ in 0..round::tests::MOST * 2 + 1 {
        pairs.push(pair().await);
    }
    for round in 0..3 {
        for (n, (ours, _)) in pairs.iter_mut().enumerate() {
            let text = format!("{round}: to {n:04}");
            assert_eq!(soon(ours, text.as_bytes()).await, Some(text.len()));
        }
        let put_off = pairs.iter().filter(|(ours, _)| is_put_off(ours)).count();
        assert_eq!(put_off, 1, "all but the last are in two rounds that were full");
        for (n, (_, theirs)) in pairs.iter_mut().enumerate() {
            let mut came = [0; 10];
            theirs.read_exact(&mut came).await.unwrap();
            assert_eq!(came, format!("{round}: to {n:04}").as_bytes());
        }
    }
}

#[tokio::test]
async fn what_is_written_later_comes_later() {
    let (mut ours, mut theirs) = pair().await;
    assert_eq!(soon(&mut ours, b"first").await, Some(5));
    assert!(is_put_off(&ours));
    assert_eq!(soon(&mut ours, b"second").await, None, "one at a time");
    ours.write_all(b" second").await.unwrap();
    assert_eq!(soon(&mut ours, b" third").await, Some(6));
    ours.flush().await.unwrap();
    assert!(!is_put_off(&ours));
    ours.shutdown().await.unwrap();
    let mut came = String::new();
    theirs.read_to_string(&mut came).await.unwrap();
    assert_eq!(came, "first second third");
}

#[tokio::test]
async fn what_is_put_off_is_written_though_the_stream_is_dropped() {
    let (mut ours, mut theirs) = pair().await;
    let (mut others, mut their_others) = pair().await;
    assert_eq!(soon(&mut ours, b"last words").await, Some(10));
    assert_eq!(soon(&mut others, b"more of them").await, Some(12));
    drop((ours, others));
    let mut came = String::new();
    theirs.read_to_string(&mut came).await.unwrap();
    their_others.read_to_string(&mut came).await.unwrap();
    assert_eq!(came, "last wordsmore of them");
}

/// Both ways in which the kernel is told, alone and with others.
#[tokio::test]
async fn a_peer_that_does_not_read_gets_all_of_it_when_it_does() {
    for alone in [true, false] {
        let (mut ours, mut theirs) = pair().await;
        let (mut others, mut their_others) = pair().await;
        let (mut wrote, mut piece) = (Vec::new(), 0_u32);
        // Until something is left over.
        loop {
            let bytes: Vec<u8> = (0..1000).flat_map(|n| (piece * 1000 + n).to_be_bytes()).collect();
            if soon(&mut ours, &bytes).await.is_none() {
                break;
            }
            wrote.extend_from_slice(&bytes);
            piece += 1;
            if !alone {
                assert_eq!(soon(&mut others, b"x").await, Some(1));
                let Stream::Joint(socket) = &others else { unreachable!() };
                poll_fn(|cx| socket.poll_clear(cx)).await.unwrap();
                their_others.read_exact(&mut [0]).await.unwrap();
            }
            round::end();
        }
        let still = poll_fn(|cx| Poll::Ready(ours.poll_left(cx))).await;
        assert!(still.is_pending(), "{still:?}");
        let mut came = vec![0; wrote.len()];
        let (left, read) = tokio::join!(poll_fn(|cx| ours.poll_left(cx)), theirs.read_exact(&mut came));
        left.unwrap();
        read.unwrap();
        assert!(came == wrote, "alone: {alone}");
        assert_eq!(soon(&mut ours, b"again").await, Some(5));
        let mut came = [0; 5];
        theirs.read_exact(&mut came).await.unwrap();
    }
}

#[tokio::test]
async fn a_peer_that_has_gone_is_told_of() {
    for alone in [true, false] {
        let (mut ours, theirs) = pair().await;
        let (mut others, _their_others) = pair().await;
        drop(theirs);
        let failed = poll_fn(|cx| {
            if let Poll::Ready(Err(error)) = ours.poll_left(cx) {
                return Poll::Ready(error);
            }
            if !alone {
                others.write_soon(b"x", cx).map(Result::unwrap);
            }
            // The first that reaches it is answered by a reset, the next fails.
            let Some(Ok(_)) = ours.write_soon(b"hello", cx) else { return Poll::Pending };
            cx.waker().wake_by_ref();
            Poll::Pending
        });
        let error = failed.await;
        assert!(
            matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset),
            "{error}"
        );
    }
}

/// Sockets that are written to by tasks of several workers, from one worker now and another then.
#[test]
fn workers_end_their_rounds_before_they_sleep() {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(3).enable_all().on_thread_park(round::before_sleep).build().unwrap();
    runtime.block_on(async {
        let mut tasks = Vec::new();
        for _ in 0..40 {
            tasks.push(tokio::spawn(async {
                let (mut ours, mut theirs) = pair().await;
                let talk = async {
                    for n in 0..500_u32 {
                        if soon(&mut ours, &n.to_be_bytes()).await.is_none() {
                            ours.write_all(&n.to_be_bytes()).await.unwrap();
                        }
                        match n % 7 {
                            0 => ours.flush().await.unwrap(),
                            1 | 2 => {}
                            _ => tokio::task::yield_now().await,
                        }
                    }
                    ours.flush().await.unwrap();
                    ours
                };
                let listen = tokio::spawn(async move {
                    for n in 0..500 {
                        assert_eq!(theirs.read_u32().await.unwrap(), n);
                    }
                });
                talk.await;
                listen.await.unwrap();
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
    });
}

/// As a server connection does: whoever has its answer hands it on, and the next one writes at once.
#[test]
fn a_socket_goes_from_task_to_task_with_every_answer() {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(3).enable_all().on_thread_park(round::before_sleep).build().unwrap();
    let talks = async {
        let (give, take) = tokio::sync::mpsc::channel(8);
        for _ in 0..8 {
            let (ours, mut theirs) = pair().await;
            give.send(ours).await.unwrap();
            tokio::spawn(async move {
                while let Ok(asked) = theirs.read_u32().await {
                    theirs.write_u32(asked).await.unwrap();
                }
            });
        }
        let take = Arc::new(tokio::sync::Mutex::new(take));
        let mut tasks = Vec::new();
        for _ in 0..24 {
            let (give, take) = (give.clone(), take.clone());
            tasks.push(tokio::spawn(async move {
                for n in 0..1000 {
                    let mut ours = take.lock().await.recv().await.unwrap();
                    if soon(&mut ours, &u32::to_be_bytes(n)).await.is_none() {
                        ours.write_all(&u32::to_be_bytes(n)).await.unwrap();
                    }
                    assert_eq!(ours.read_u32().await.unwrap(), n);
                    give.send(ours).await.unwrap();
                }
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
    };
    let limit = std::time::Duration::from_secs(60);
    runtime.block_on(async { tokio::time::timeout(limit, talks).await.unwrap() });
}

#[test]
fn where_nobody_ends_the_round_nothing_is_put_off() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let put_off = async {
        let (mut ours, _theirs) = pair().await;
        assert_eq!(soon(&mut ours, b"hello").await, Some(5));
        is_put_off(&ours)
    };
    assert!(!runtime.block_on(async { tokio::spawn(put_off).await.unwrap() }));
}
