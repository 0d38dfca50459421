//! `pgherd load-test`: a mix of reads and writes from many connections, measured.
//! Must not know whether pgherd or a plain server answers.

mod ids;
mod operation;
mod record;
mod report;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_util::sync::CancellationToken;

use self::operation::Choice;
use self::record::Record;
use self::report::Report;
use self::worker::Worker;
use super::client::Target;
use super::{Failure, args, runtime, ui};

/// How long statements that run at the end may still take.
const GRACE: Duration = Duration::from_secs(5);
/// Where there is no terminal, a line so often.
const LOG_EVERY: u64 = 5;

/// Runs the test and prints its result. A Ctrl-C ends it early, with the result so far.
pub(super) async fn load_test(args: args::LoadTest) -> Result<(), Failure> {
    let config = if args.connect.url.is_some() { None } else { Some(args.connect.config.load()?) };
    let target = Target::new(&args.connect, config.as_deref())?;
    let client = target.connect_first().await?;
    let ids = Arc::new(ids::sample(&client, args.seed).await?);
    drop(client);
    ui::say(&format!(
        "{} connections to {} for {:?}, {:.0} % writes, {} known users",
        args.concurrency,
        target.describe(),
        args.duration,
        args.write_ratio * 100.0,
        ui::grouped(ids.len() as u64),
    ));
    let record = Arc::new(Record::new(args.concurrency as usize));
    let (elapsed, unfinished) = run(&args, &target, &ids, &record).await;
    let report = Report::new(&record, elapsed, unfinished, args.concurrency);
    ui::print(&report.to_string());
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&report.json()).map_err(|e| Failure::new(e.to_string()))?;
        std::fs::write(path, text + "\n")
            .map_err(|e| Failure::new(format!("cannot write {}: {e}", path.display())))?;
    }
    match report.failed() {
        n if n > 0 && args.strict => Err(Failure::new(format!("{n} statements failed"))),
        _ => Ok(()),
    }
}

/// Runs all workers to the end; how long that was, and how many statements were still running then.
async fn run(
    args: &args::LoadTest,
    target: &Target,
    ids: &Arc<Vec<String>>,
    record: &Arc<Record>,
) -> (Duration, u64) {
    let stop = CancellationToken::new();
    let start = Instant::now();
    let mut workers = JoinSet::new();
    for number in 0..args.concurrency {
        let worker = Worker {
            target: target.clone(),
            ids: ids.clone(),
            record: record.clone(),
            choice: Choice::new(args.seed, number, args.write_ratio),
            protocol: args.protocol,
            number: number as usize,
            stop: stop.clone(),
        };
        workers.spawn(worker.run());
    }
    tokio::select! {
        () = show(record, args.duration) => {}
        () = runtime::interrupted() => ui::say("stopping"),
    }
    let elapsed = start.elapsed();
    stop.cancel();
    let all = async { while workers.join_next().await.is_some() {} };
    let unfinished = if timeout(GRACE, all).await.is_ok() { 0 } else { workers.len() as u64 };
    workers.shutdown().await;
    (elapsed, unfinished)
}

/// The live line, until the time is over.
async fn show(record: &Record, duration: Duration) {
    let bar = ProgressBar::new(duration.as_secs().max(1));
    if let Ok(style) = ProgressStyle::with_template("{elapsed:>4} {bar:24} {msg}") {
        bar.set_style(style);
    }
    let start = Instant::now();
    let mut ticks = interval_at(start + Duration::from_secs(1), Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut before = (start, 0, 0);
    let ticking = async {
        for second in 1u64.. {
            let now = ticks.tick().await;
            let (ok, failed) = record.counts();
            let seconds = (now - before.0).as_secs_f64().max(0.001);
            let rate = (ok - before.1) as f64 / seconds;
            let line = format!("{rate:>9.0} statements/s  {:>6} failed, {failed} in all", failed - before.2);
            if bar.is_hidden() && second.is_multiple_of(LOG_EVERY) {
                ui::say(&format!("{second:>4} s {line}"));
            }
            bar.set_position(second);
            bar.set_message(line);
            before = (now, ok, failed);
        }
    };
    let _ = timeout(duration, ticking).await;
    bar.finish_and_clear();
}
