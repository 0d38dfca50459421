//! The result of a load test: as a table, as JSON, and as what is drawn.
//! Must not know how it was measured. Latencies are of successful statements only.

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::super::ui;
use super::operation::Operation;
use super::plot::Plot;
use super::record::{ErrorKey, Record, Share};
use super::series::Step;

/// The percentiles that are shown.
const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("p99.9", 0.999)];

/// A finished test.
pub(super) struct Report {
    share: Share,
    total: Histogram<u64>,
    facts: Facts,
}

/// What is known of a test besides its latencies and errors.
#[derive(Debug)]
pub(super) struct Facts {
    /// What was asked, and how.
    pub(super) about: String,
    pub(super) concurrency: u32,
    pub(super) elapsed: Duration,
    /// Statements without an answer when the time was over.
    pub(super) unfinished: u64,
    pub(super) steps: Vec<Step>,
}

impl Report {
    pub(super) fn new(record: &Record, facts: Facts) -> Self {
        let share = record.merged();
        let mut total = share.latencies[0].clone();
        for histogram in share.latencies.iter().skip(1) {
            total.add(histogram).unwrap_or_else(|_| unreachable!("all have the same bounds"));
        }
        Self { share, total, facts }
    }

    /// Statements that failed or had no answer when the time was over.
    pub(super) fn failed(&self) -> u64 {
        self.share.failed.iter().sum::<u64>() + self.facts.unfinished
    }

    fn seconds(&self) -> f64 {
        self.facts.elapsed.as_secs_f64().max(0.001)
    }

    /// Name, latencies and failures of every class that ran, and of all together at the end.
    fn lines(&self) -> Vec<(&'static str, &Histogram<u64>, u64)> {
        let by_class = Operation::ALL.iter().zip(&self.share.latencies).zip(&self.share.failed);
        let mut lines: Vec<_> =
            by_class.map(|((op, latency), failed)| (op.name(), latency, *failed)).collect();
        lines.retain(|(_, latency, failed)| latency.len() + failed > 0);
        lines.push(("all", &self.total, self.failed()));
        lines
    }

    /// Times in microseconds.
    pub(super) fn json(&self) -> Value {
        let line = |(name, latency, failed): (&str, &Histogram<u64>, u64)| {
            let mut value = json!({
                "operation": name, "ok": latency.len(), "failed": failed,
                "per_second": latency.len() as f64 / self.seconds(), "success_rate": success(latency, failed),
                "mean_us": latency.mean(), "max_us": latency.max(),
            });
            for (label, quantile) in QUANTILES {
                value[format!("{}_us", label.replace('.', ""))] = json!(latency.value_at_quantile(quantile));
            }
            value
        };
        let error = |(key, count): (&ErrorKey, &u64)| json!({ "sqlstate": key.code, "message": key.message, "count": count, "connecting": key.connecting });
        let step = |step: &Step| {
            json!({
                "end_s": step.end.as_secs_f64(), "ok": step.ok, "failed": step.failed, "per_second": step.rate(),
                "p50_us": step.p50_us, "p95_us": step.p95_us, "p99_us": step.p99_us, "max_us": step.max_us,
            })
        };
        json!({
            "about": self.facts.about, "seconds": self.facts.elapsed.as_secs_f64(),
            "concurrency": self.facts.concurrency, "unfinished": self.facts.unfinished,
            "operations": self.lines().into_iter().map(line).collect::<Vec<_>>(),
            "errors": self.share.errors.iter().map(error).collect::<Vec<_>>(),
            "series": self.facts.steps.iter().map(step).collect::<Vec<_>>(),
        })
    }

    /// The same as a picture.
    pub(super) fn plot(&self) -> Plot<'_> {
        let mut classes: Vec<_> =
            self.lines().into_iter().map(|(name, latency, _)| (name, latency)).collect();
        classes.rotate_right(1); // all together first
        let ms = |quantile| self.total.value_at_quantile(quantile) as f64 / 1000.0;
        let result = format!(
            "{} ok in {:.1} s = {} per second, {} failed; p50 {:.2} ms, p99 {:.2} ms, longest {:.2} ms",
            ui::grouped(self.total.len()),
            self.facts.elapsed.as_secs_f64(),
            ui::grouped((self.total.len() as f64 / self.seconds()).round() as u64),
            ui::grouped(self.failed()),
            ms(0.5),
            ms(0.99),
            self.total.max() as f64 / 1000.0,
        );
        let about = format!("{} connections to {}", self.facts.concurrency, self.facts.about);
        Plot { about, result, steps: &self.facts.steps, classes }
    }
}

fn success(latency: &Histogram<u64>, failed: u64) -> f64 {
    let all = latency.len() + failed;
    if all == 0 { 0.0 } else { latency.len() as f64 / all as f64 }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |us: f64| format!("{:.2}", us / 1000.0);
        let mut header = vec!["statement", "ok", "failed", "success", "per second", "mean ms"];
        header.extend(QUANTILES.map(|(label, _)| label));
        header.push("max");
        let mut table = ui::table(&header);
        for (name, latency, failed) in self.lines() {
            let mut cells = vec![name.to_owned(), ui::grouped(latency.len()), ui::grouped(failed)];
            cells.push(format!("{:.3} %", 100.0 * success(latency, failed)));
            cells.push(format!("{:.0}", latency.len() as f64 / self.seconds()));
            cells.push(ms(latency.mean()));
            cells.extend(QUANTILES.map(|(_, quantile)| ms(latency.value_at_quantile(quantile) as f64)));
            cells.push(ms(latency.max() as f64));
            table.add_row(cells);
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(comfy_table::CellAlignment::Right);
        }
        writeln!(f, "{table}")?;
        write!(f, "{:.1} s, {} connections", self.facts.elapsed.as_secs_f64(), self.facts.concurrency)?;
        if self.facts.unfinished > 0 {
            write!(f, ", {} statements without an answer at the end", self.facts.unfinished)?;
        }
        if self.share.errors.is_empty() {
            return write!(f, ", no errors");
        }
        let mut errors = ui::table(&["errors", "sqlstate", "message"]);
        let mut sorted: Vec<_> = self.share.errors.iter().collect();
        sorted.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        for (key, count) in sorted {
            let message =
                if key.connecting { format!("connecting: {}", key.message) } else { key.message.clone() };
            let code = if key.code.is_empty() { "-" } else { key.code.as_str() };
            errors.add_row([ui::grouped(*count), code.to_owned(), message]);
        }
        write!(f, "\n{errors}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_and_the_json_say_the_same() {
        let record = Record::new(1);
        for us in 1..=1000 {
            record.success(0, Operation::UserById, Duration::from_micros(us));
        }
        let facts = Facts {
            about: "a test".into(),
            concurrency: 4,
            elapsed: Duration::from_secs(2),
            unfinished: 3,
            steps: Vec::new(),
        };
        let report = Report::new(&record, facts);
        let text = report.to_string();
        assert!(text.contains("| select user | 1 000 ") && text.contains("500"), "{text}");
        assert!(text.contains("3 statements without an answer") && !text.contains("insert order"), "{text}");
        let json = report.json();
        assert_eq!(json["operations"][0]["p50_us"], 500);
        assert_eq!(json["operations"][1]["operation"], "all");
        assert_eq!(json["operations"][1]["failed"], 3);
        assert_eq!(json["operations"][0]["per_second"], 500.0);
        assert!(report.plot().svg().unwrap().contains("1 000 ok in 2.0 s = 500 per second, 3 failed"));
    }
}
