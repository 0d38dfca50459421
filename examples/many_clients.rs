//! Many clients of one proxy: what each costs in memory while idle, and how long each waits while all are active.
//! Used by `benches/clients.sh`: `many_clients idle URL CLIENTS PID` prints the bytes of resident memory that process
//! PID has grown by for each client, after one query each; `many_clients active URL CLIENTS SECONDS` prints a row.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::sync::{Barrier, Semaphore};
use tokio::time::Instant;
use tokio_postgres::{Client, NoTls};

type Failure = Box<dyn Error + Send + Sync>;

/// Logins under way at once.
const LOGINS: usize = 50;
/// Clients before the first look at the memory: what is made once, like server connections, is not theirs.
const FIRST: usize = 100;

/// Logs in and asks once.
async fn connect(url: &str, places: Arc<Semaphore>) -> Result<Client, Failure> {
    let _place = places.acquire().await?;
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    client.simple_query("SELECT 1").await?;
    Ok(client)
}

async fn connect_all(url: &str, clients: usize) -> Result<Vec<Client>, Failure> {
    let places = Arc::new(Semaphore::new(LOGINS));
    let mut logins = Vec::with_capacity(clients);
    for _ in 0..clients {
        let (url, places) = (url.to_owned(), places.clone());
        logins.push(tokio::spawn(async move { connect(&url, places).await }));
    }
    let mut connected = Vec::with_capacity(clients);
    for login in logins {
        connected.push(login.await??);
    }
    Ok(connected)
}

fn resident_bytes(pid: &str) -> Result<u64, Failure> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}

async fn idle(url: &str, clients: usize, pid: &str) -> Result<(), Failure> {
    let first = connect_all(url, FIRST).await?;
    let before = resident_bytes(pid)?;
    let all = connect_all(url, clients).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let after = resident_bytes(pid)?;
    println!("{}", after.saturating_sub(before) / clients as u64);
    drop((first, all));
    Ok(())
}

/// Asks again and again until the end; how often, and how long each answer took.
async fn ask(client: Client, start: Arc<Barrier>, time: Duration) -> Result<(u64, Histogram<u32>), Failure> {
    let mut waits = Histogram::new_with_bounds(1, 60_000_000, 2)?;
    start.wait().await;
    let end = Instant::now() + time;
    let mut asked = 0;
    while Instant::now() < end {
        let at = Instant::now();
        client.simple_query("SELECT 1").await?;
        waits.saturating_record(at.elapsed().as_micros() as u64);
        asked += 1;
    }
    Ok((asked, waits))
}

async fn active(url: &str, clients: usize, seconds: u64) -> Result<(), Failure> {
    let start = Arc::new(Barrier::new(clients));
    let time = Duration::from_secs(seconds);
    let asking = connect_all(url, clients).await?.into_iter();
    let asking: Vec<_> = asking.map(|client| tokio::spawn(ask(client, start.clone(), time))).collect();
    let mut all = Histogram::<u64>::new_with_bounds(1, 60_000_000, 3)?;
    let (mut least, mut most, mut sum) = (u64::MAX, 0, 0);
    for one in asking {
        let (asked, waits) = one.await??;
        (least, most, sum) = (least.min(asked), most.max(asked), sum + asked);
        for bucket in waits.iter_recorded() {
            all.saturating_record_n(bucket.value_iterated_to(), u64::from(bucket.count_at_value()));
        }
    }
    let ms = |us: u64| us as f64 / 1000.0;
    let (median, p99) = (all.value_at_quantile(0.5), all.value_at_quantile(0.99));
    println!(
        "{sum} | {least} / {most} | {:.0} | {:.0} | {:.0} | {:.2}",
        ms(median),
        ms(p99),
        ms(all.max()),
        p99 as f64 / median.max(1) as f64
    );
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["idle", url, clients, pid] => idle(url, clients.parse()?, pid).await,
        ["active", url, clients, seconds] => active(url, clients.parse()?, seconds.parse()?).await,
        _ => Err("usage: many_clients idle URL CLIENTS PID | active URL CLIENTS SECONDS".into()),
    }
}
