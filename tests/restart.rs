//! One process takes over from another, and no connection is refused meanwhile.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod common;

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use common::{Herd, PATIENCE, Port, Process, eventually};
use tokio_postgres::NoTls;

fn configuration(dir: &Path, port: u16, herd: &Herd) -> std::path::PathBuf {
    let file = dir.join("proxy.toml");
    let text = format!(
        "[proxy]\nlisten = [\"127.0.0.1:{port}\"]\nreuse_port = true\n\
         [[user]]\nname = \"app\"\ntrust = true\nserver_password = \"app\"\n\
         [[database]]\nname = \"app\"\n[[database.shard]]\nname = \"s\"\n\
         servers = [{{ host = \"127.0.0.1\", port = {} }}]\n",
        herd.primary(0).port
    );
    std::fs::write(&file, text).unwrap();
    file
}

/// Connects for ever; counts, and stops at the first connection that is not let in.
struct Loop {
    connected: Arc<AtomicU32>,
    stop: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Loop {
    fn start(port: u16) -> Self {
        let (connected, stop) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
        let one = || {
            let (connected, stop) = (connected.clone(), stop.clone());
            tokio::spawn(async move {
                while !stop.load(Relaxed) {
                    let mut config = tokio_postgres::Config::new();
                    config.host("127.0.0.1").port(port).user("app").dbname("app");
                    match config.connect(NoTls).await {
                        Ok((client, connection)) => {
                            let connection = tokio::spawn(connection);
                            // A process that ends tells its idle sessions so: that is no refusal.
                            drop(client.simple_query("select 1").await);
                            drop(client);
                            drop(connection.await);
                        }
                        // It was let in as far as the proxy's own words.
                        Err(e) if e.as_db_error().is_some_and(|e| e.code().code() == "57P01") => {}
                        Err(e) => panic!("refused: {e:?}"),
                    }
                    connected.fetch_add(1, Relaxed);
                }
            })
        };
        let tasks = (0..3).map(|_| one()).collect();
        Self { connected, stop, tasks }
    }

    async fn goes_on(&self, what: &str) {
        let before = self.connected.load(Relaxed);
        eventually(what, PATIENCE, async || (self.connected.load(Relaxed) > before + 20).then_some(())).await;
    }

    async fn end(self) {
        self.stop.store(true, Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_process_beside_the_old_one_takes_over_and_refuses_nobody() {
    let (herd, port, dir) = (Herd::start(1, 0).await, Port::reserve(), tempfile::tempdir().unwrap());
    let file = configuration(dir.path(), port.number(), &herd);
    let start = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgherd"));
        command.args(["run", "-c"]).arg(&file);
        Process::started(command)
    };
    let mut old = start();
    let clients = Loop::start(port.number());
    for _ in 0..3 {
        clients.goes_on("clients connect to one process").await;
        let new = start();
        old.terminate();
        old.ended().await;
        clients.goes_on("clients connect to the other").await;
        old = new;
    }
    clients.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_that_is_handed_over_refuses_nobody_while_no_process_is_there() {
    let (herd, dir) = (Herd::start(1, 0).await, tempfile::tempdir().unwrap());
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    let file = configuration(dir.path(), 1, &herd); // port 1 is not listened on: the socket is used
    let start = || {
        // As systemd does: descriptor 3, and the process id in the environment.
        let script = "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" run -c \"$1\" 3<&0 </dev/null";
        let mut command = Command::new("sh");
        command.args(["-c", script, env!("CARGO_BIN_EXE_pgherd")]).arg(&file);
        command.stdin(Stdio::from(OwnedFd::from(socket.try_clone().unwrap())));
        Process::started(command)
    };
    let mut process = start();
    let clients = Loop::start(port);
    for _ in 0..2 {
        clients.goes_on("clients connect").await;
        process.terminate();
        process.ended().await;
        process = start();
        clients.goes_on("clients connect again").await;
    }
    clients.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sighup_is_reload_and_a_bad_file_changes_nothing() {
    let (herd, port, dir) = (Herd::start(1, 0).await, Port::reserve(), tempfile::tempdir().unwrap());
    let file = configuration(dir.path(), port.number(), &herd);
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgherd"));
    command.args(["run", "--config"]).arg(&file);
    let mut process = Process::started(command);
    let connect = async |user: &str| {
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(port.number()).user(user).dbname("app");
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(connection);
        client.simple_query("select 1").await.map(|_| client)
    };
    let stays = eventually("app is let in", PATIENCE, async || connect("app").await.ok()).await;
    assert!(connect("late").await.is_err());
    let text = std::fs::read_to_string(&file).unwrap();
    let late = "[[user]]\nname = \"late\"\ntrust = true\nserver_user = \"app\"\nserver_password = \"app\"\n";
    std::fs::write(&file, text.replacen("[[database]]", &format!("{late}[[database]]"), 1)).unwrap();
    process.signal("-HUP");
    eventually("the new user is let in", PATIENCE, async || connect("late").await.ok()).await;
    std::fs::write(&file, "this is no configuration").unwrap();
    process.signal("-HUP");
    stays.simple_query("select 1").await.unwrap();
    connect("late").await.unwrap();
    process.terminate();
    process.ended().await;
}
