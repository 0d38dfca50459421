//! `pgherd load-test`: a mix of reads and writes from many connections, measured.
//! Must not know whether pgherd or a plain server answers.

mod connection;
mod failed;
mod http;
mod ids;
mod operation;
mod plot;
mod record;
mod report;
mod series;
mod worker;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_util::sync::CancellationToken;

use self::connection::Way;
use self::http::Site;
use self::operation::Choice;
use self::record::Record;
use self::report::{Facts, Report};
use self::series::Series;
use self::worker::Worker;
use super::client::Target;
use super::{Failure, args, runtime, ui};

/// How long statements that run at the end may still take.
const GRACE: Duration = Duration::from_secs(5);
/// Where there is no terminal, a line so often.
const LOG_EVERY: u64 = 5;

/// Runs the test and prints its result. A Ctrl-C ends it early, with the result so far.
pub(super) async fn load_test(args: args::LoadTest) -> Result<(), Failure> {
    let way = way(&args)?;
    let mut first = way.connect_first().await?;
    let ids = Arc::new(ids::sample(&mut first, args.seed).await?);
    drop(first);
    ui::say(&format!(
        "{} connections to {} for {:?}, {:.0} % writes, {} known users",
        args.concurrency,
        way.describe(),
        args.duration,
        args.write_ratio * 100.0,
        ui::grouped(ids.len() as u64),
    ));
    let record = Arc::new(Record::new(args.concurrency as usize));
    let facts = run(&args, &way, &ids, &record).await;
    let report = Report::new(&record, facts);
    ui::print(&report.to_string());
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&report.json()).map_err(|e| Failure::new(e.to_string()))?;
        write(path, &(text + "\n"))?;
    }
    if let Some(path) = &args.plot {
        let svg = report.plot().svg().map_err(|e| Failure::new(format!("cannot draw the plot: {e}")))?;
        write(path, &svg)?;
    }
    match report.failed() {
        n if n > 0 && args.strict => Err(Failure::new(format!("{n} statements failed"))),
        _ => Ok(()),
    }
}

fn way(args: &args::LoadTest) -> Result<Way, Failure> {
    if let Some(url) = &args.http {
        return Ok(Way::Http(Arc::new(Site::new(url, std::env::var("PGPASSWORD").ok())?)));
    }
    let config = if args.connect.url.is_some() { None } else { Some(args.connect.config.load()?) };
    Ok(Way::Wire(Box::new(Target::new(&args.connect, config.as_deref())?), args.protocol))
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text).map_err(|e| Failure::new(format!("cannot write {}: {e}", path.display())))
}

/// Runs all workers to the end.
async fn run(args: &args::LoadTest, way: &Way, ids: &Arc<Vec<String>>, record: &Arc<Record>) -> Facts {
    let stop = CancellationToken::new();
    let start = Instant::now();
    let mut series = Series::new(args.duration);
    let mut workers = JoinSet::new();
    for number in 0..args.concurrency {
        let worker = Worker {
            way: way.clone(),
            ids: ids.clone(),
            record: record.clone(),
            choice: Choice::new(args.seed, number, args.write_ratio, way.mix()),
            number: number as usize,
            stop: stop.clone(),
        };
        workers.spawn(worker.run());
    }
    tokio::select! {
        () = show(record, &mut series, args.duration) => {}
        () = runtime::interrupted() => ui::say("stopping"),
    }
    let elapsed = start.elapsed();
    let steps = series.finish(record);
    stop.cancel();
    let all = async { while workers.join_next().await.is_some() {} };
    let unfinished = if timeout(GRACE, all).await.is_ok() { 0 } else { workers.len() as u64 };
    workers.shutdown().await;
    let about = format!("{}, {:.0} % writes", way.describe(), args.write_ratio * 100.0);
    Facts { about, concurrency: args.concurrency, elapsed, unfinished, steps }
}

/// The live line, until the time is over.
async fn show(record: &Record, series: &mut Series, duration: Duration) {
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
            series.second(second, record);
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
