//! The result of a load test as a picture: throughput and latency over time, and latency by percentile.
//! Must not know how it was measured.

use std::error::Error;

use hdrhistogram::Histogram;
use plotters::coord::Shift;
use plotters::prelude::*;

use super::series::Step;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn Error>>;

/// Colours that can be told apart with any kind of colour vision.
const BLUE: RGBColor = RGBColor(0, 114, 178);
const SKY: RGBColor = RGBColor(86, 180, 233);
const GREEN: RGBColor = RGBColor(0, 158, 115);
const ORANGE: RGBColor = RGBColor(230, 159, 0);
const RED: RGBColor = RGBColor(213, 94, 0);
const PURPLE: RGBColor = RGBColor(204, 121, 167);
const INK: RGBColor = RGBColor(28, 32, 38);
const FAINT: RGBColor = RGBColor(228, 231, 236);

const SIZE: (u32, u32) = (960, 900);
const HEAD: u32 = 76;
/// Width of the legend.
const LEGEND: i32 = 150;
const FONT: &str = "system-ui, sans-serif";

/// Grid, ticks and labels of a chart; a macro, for the types of charts with other axes differ.
macro_rules! mesh {
    ($chart:ident, $x_labels:expr, $x:expr, $y:expr) => {
        $chart
            .configure_mesh()
            .axis_style(INK.mix(0.4))
            .bold_line_style(FAINT)
            .light_line_style(TRANSPARENT)
            .label_style((FONT, 12).into_font().color(&INK.mix(0.8)))
            .x_label_formatter(&$x)
            .y_label_formatter(&$y)
            .x_labels($x_labels)
            .y_labels(6)
            .draw()?
    };
}

/// One line, remembered for the legend.
macro_rules! line {
    ($chart:ident, $legend:ident, $points:expr, $colour:expr, $width:expr, $name:expr) => {{
        $chart.draw_series(LineSeries::new($points, ShapeStyle::from(&$colour).stroke_width($width)))?;
        $legend.push(($name, $colour.to_rgba()));
    }};
}

/// All that is drawn.
pub(super) struct Plot<'a> {
    /// What was tested, in a line.
    pub(super) about: String,
    /// What came of it, in a line.
    pub(super) result: String,
    pub(super) steps: &'a [Step],
    /// Name and latencies, µs, of each class of statement.
    pub(super) classes: Vec<(&'static str, &'a Histogram<u64>)>,
}

impl Plot<'_> {
    /// As SVG.
    ///
    /// # Errors
    /// What the drawing library says.
    pub(super) fn svg(&self) -> Result<String, Box<dyn Error>> {
        let mut svg = String::new();
        {
            let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
            root.fill(&WHITE)?;
            let (head, body) = root.split_vertically(HEAD);
            self.head(&head)?;
            let [throughput, over_time, by_percentile] = &body.split_evenly((3, 1))[..] else {
                return Err("three parts were asked for".into());
            };
            self.throughput(throughput)?;
            self.over_time(over_time)?;
            self.by_percentile(by_percentile)?;
            root.present()?;
        }
        Ok(svg)
    }

    fn head(&self, area: &Area<'_>) -> Drawn {
        area.draw_text(&self.about, &(FONT, 19).into_font().color(&INK), (24, 20))?;
        area.draw_text(&self.result, &(FONT, 14).into_font().color(&INK.mix(0.75)), (24, 48))?;
        Ok(())
    }

    /// From 0 to the end of the test, s.
    fn seconds(&self) -> std::ops::Range<f64> {
        0.0..self.steps.last().map_or(1.0, |s| s.end.as_secs_f64()).max(0.1)
    }

    fn throughput(&self, area: &Area<'_>) -> Drawn {
        let most = self.steps.iter().map(|s| s.rate().max(s.failed_rate())).fold(1.0, f64::max);
        let mut legend = Vec::new();
        let mut chart =
            builder(area, "Statements per second")?.build_cartesian_2d(self.seconds(), 0.0..most * 1.15)?;
        mesh!(chart, 10, |x: &f64| format!("{x:.0} s"), |y: &f64| grouped(*y));
        let points = |of: fn(&Step) -> f64| self.steps.iter().map(move |s| (s.end.as_secs_f64(), of(s)));
        chart.draw_series(AreaSeries::new(points(Step::rate), 0.0, BLUE.mix(0.12)))?;
        line!(chart, legend, points(Step::rate), BLUE, 2, "succeeded");
        if self.steps.iter().any(|s| s.failed > 0) {
            let failed = self.steps.iter().filter(|s| s.failed > 0);
            let crosses = failed.map(|s| Cross::new((s.end.as_secs_f64(), s.failed_rate()), 4, RED));
            line!(chart, legend, points(Step::failed_rate), RED, 1, "failed (×)");
            chart.draw_series(crosses)?;
        }
        draw_legend(area, &legend)
    }

    fn over_time(&self, area: &Area<'_>) -> Drawn {
        let busy: Vec<&Step> = self.steps.iter().filter(|s| s.ok > 0).collect();
        let least = busy.iter().map(|s| s.p50_us).min().unwrap_or(100);
        let most = busy.iter().map(|s| s.max_us).max().unwrap_or(1000);
        let mut legend = Vec::new();
        let mut chart = builder(area, "Latency over time (logarithmic)")?
            .build_cartesian_2d(self.seconds(), decades(least, most).log_scale())?;
        mesh!(chart, 10, |x: &f64| format!("{x:.0} s"), |y: &f64| milliseconds(*y));
        let points = |of: fn(&Step) -> u64| {
            busy.iter().map(move |s| (s.end.as_secs_f64(), ms(of(s)))).collect::<Vec<_>>()
        };
        line!(chart, legend, points(|s| s.max_us), INK.mix(0.35), 1, "longest");
        line!(chart, legend, points(|s| s.p99_us), RED, 2, "p99");
        line!(chart, legend, points(|s| s.p95_us), ORANGE, 2, "p95");
        line!(chart, legend, points(|s| s.p50_us), BLUE, 2, "p50");
        draw_legend(area, &legend)
    }

    /// The tail takes most of the room: each step to the right is a tenth of the statements.
    fn by_percentile(&self, area: &Area<'_>) -> Drawn {
        let all = || self.classes.iter().map(|(_, h)| *h).filter(|h| !h.is_empty());
        let least = all().map(Histogram::min).min().unwrap_or(100);
        let most = all().map(Histogram::max).max().unwrap_or(1000);
        let nines = all().map(|h| (h.len() as f64).log10()).fold(1.0, f64::max).min(6.0);
        let mut legend = Vec::new();
        let mut chart = builder(area, "Latency by percentile (logarithmic)")?
            .build_cartesian_2d(0.0..nines, decades(least, most).log_scale())?;
        mesh!(chart, nines.ceil() as usize + 3, |x: &f64| percentile(*x), |y: &f64| milliseconds(*y));
        let colours = [BLUE, GREEN, ORANGE, RED, PURPLE, SKY];
        for ((name, histogram), colour) in self.classes.iter().zip(colours.iter().cycle()) {
            if histogram.is_empty() {
                continue;
            }
            let own = nines.min((histogram.len() as f64).log10());
            let points = (0..=200)
                .map(|i| f64::from(i) / 200.0 * own)
                .map(|nines| (nines, ms(histogram.value_at_quantile(1.0 - 10f64.powf(-nines)))));
            line!(chart, legend, points, *colour, 2, *name);
        }
        draw_legend(area, &legend)
    }
}

/// A chart with its title above and room for the legend at its right.
fn builder<'a, 'b>(
    area: &'a Area<'b>,
    title: &str,
) -> Result<ChartBuilder<'a, 'b, SVGBackend<'b>>, Box<dyn Error>> {
    area.draw_text(title, &(FONT, 15).into_font().color(&INK), (24, 6))?;
    let mut builder = ChartBuilder::on(area);
    builder.margin_top(34).margin_bottom(8).margin_left(16).margin_right(LEGEND as u32);
    builder.x_label_area_size(28).y_label_area_size(72);
    Ok(builder)
}

fn draw_legend(area: &Area<'_>, entries: &[(&str, RGBAColor)]) -> Drawn {
    let left = SIZE.0 as i32 - LEGEND + 16;
    for (row, (name, colour)) in (0..).zip(entries) {
        let y = 42 + row * 18;
        area.draw(&PathElement::new([(left, y), (left + 16, y)], colour.stroke_width(3)))?;
        area.draw_text(name, &(FONT, 13).into_font().color(&INK), (left + 24, y - 7))?;
    }
    Ok(())
}

/// A range of ms that holds both, with some room.
fn decades(least_us: u64, most_us: u64) -> std::ops::Range<f64> {
    let least = ms(least_us.max(1)) * 0.8;
    least..(ms(most_us) * 1.25).max(least * 10.0)
}

fn ms(us: u64) -> f64 {
    us as f64 / 1000.0
}

fn milliseconds(ms: f64) -> String {
    if ms < 1.0 { format!("{} ms", (ms * 1000.0).round() / 1000.0) } else { format!("{} ms", grouped(ms)) }
}

fn grouped(number: f64) -> String {
    super::super::ui::grouped(number.round().max(0.0) as u64)
}

/// 0, 90, 99, 99.9, …; nothing for what is between.
fn percentile(nines: f64) -> String {
    if (nines - nines.round()).abs() > 0.01 {
        return String::new();
    }
    let digits = (nines.round() - 2.0).max(0.0) as usize;
    format!("{:.digits$} %", 100.0 * (1.0 - 10f64.powf(-nines)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn step(second: u64, failed: u64) -> Step {
        Step {
            end: Duration::from_secs(second),
            length: Duration::from_secs(1),
            ok: 1000,
            failed,
            p50_us: 400,
            p95_us: 900,
            p99_us: 1500 * second,
            max_us: 20_000,
        }
    }

    fn drawn(steps: &[Step]) -> String {
        let mut histogram = Histogram::new_with_bounds(1, 1_000_000, 3).unwrap();
        (1..=1000).for_each(|us| histogram.record(us * 7).unwrap());
        let empty = Histogram::new_with_bounds(1, 1_000_000, 3).unwrap();
        let classes = vec![("select <user>", &histogram), ("nothing", &empty)];
        Plot { about: "about".into(), result: "result".into(), steps, classes }.svg().unwrap()
    }

    #[test]
    fn a_plot_shows_what_there_is_and_names_it() {
        let svg = drawn(&[step(1, 0), step(2, 5)]);
        for text in ["about", "result", "p50", "p99", "failed", "99.9 %", "1 000", "select &lt;user&gt;"] {
            assert!(svg.contains(text), "{text} is missing:\n{svg}");
        }
        assert!(!svg.contains("nothing") && !svg.contains("NaN"));
        assert!(!drawn(&[step(1, 0)]).contains("failed"));
    }

    #[test]
    fn a_test_without_any_success_can_be_drawn() {
        let nothing = Step { ok: 0, p50_us: 0, p95_us: 0, p99_us: 0, max_us: 0, ..step(1, 3) };
        assert!(!drawn(&[nothing]).contains("NaN"));
        assert!(!drawn(&[]).contains("NaN"));
    }
}
