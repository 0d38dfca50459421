//! The proxy as a process of its own.
//! Must not know its configuration.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use super::proxy::PATIENCE;
use super::wait::eventually;

/// A proxy process; killed when dropped.
pub struct Process(Child);

impl Process {
    /// Waits until it says that it listens.
    pub fn started(mut command: Command) -> Self {
        let mut child = command.env("RUST_LOG", "info").stderr(Stdio::piped()).spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let (said, says) = mpsc::channel();
        std::thread::spawn(move || {
            for line in log.lines().map_while(Result::ok) {
                if line.contains("listening") {
                    let _ = said.send(());
                }
                eprintln!("{line}");
            }
        });
        says.recv_timeout(PATIENCE).expect("it listens");
        Self(child)
    }

    /// How many threads it has. Source: proc(5).
    pub fn threads(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/task", self.0.id())).unwrap().count()
    }

    pub fn terminate(&self) {
        self.signal("-TERM");
    }

    pub fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.0.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Waits until it has ended, and well.
    pub async fn ended(&mut self) {
        let status = eventually("the process ends", PATIENCE, async || self.0.try_wait().unwrap()).await;
        assert!(status.success(), "{status}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
