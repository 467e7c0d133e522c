//! Plots as SVG files that can be read on a light and on a dark page.

use std::fmt::Write as _;

/// One line of a plot.
pub(super) struct Line {
    pub(super) name: &'static str,
    pub(super) points: Vec<(f64, f64)>,
}

pub(super) struct Plot {
    pub(super) title: &'static str,
    pub(super) x: &'static str,
    pub(super) y: &'static str,
    /// Whether each step upwards is a tenfold.
    pub(super) log: bool,
    /// Marks of the horizontal axis: where, and what stands there.
    pub(super) marks: Vec<(f64, String)>,
    pub(super) lines: Vec<Line>,
}

const SIZE: (f64, f64) = (760.0, 360.0);
const LEFT: f64 = 70.0;
const RIGHT: f64 = 590.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 300.0;
/// Told apart also by who sees few colours (Okabe and Ito), and seen on white and on black.
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#7f7f7f"];
/// And without colours.
const DASHES: [&str; 6] = ["", "7 3", "2 3", "9 3 2 3", "4 2", "1 4"];

/// Text and axes in a grey that is read on both; where the page says that it is dark, in a lighter one.
const STYLE: &str = "text{font:13px system-ui,sans-serif;fill:#5a5a5a}.title{font-weight:600;font-size:15px}\
    .axis{stroke:#8a8a8a;stroke-width:1}.grid{stroke:#8a8a8a;stroke-opacity:.3}\
    .line{fill:none;stroke-width:2}@media(prefers-color-scheme:dark){text{fill:#b8b8b8}}";

impl Plot {
    pub(super) fn svg(&self) -> String {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let (left, right) = range(points().map(|point| point.0));
        let (least, most) = range(points().map(|point| point.1));
        // A logarithm has no zero.
        let floor = if self.log { 10_f64.powf(least.max(1e-3).log10().floor()) } else { 0.0 };
        let steps = if self.log { decades(floor, most) } else { steps(most) };
        let ceiling = steps.last().copied().unwrap_or(1.0);
        let x = |value: f64| LEFT + (value - left) / (right - left).max(1e-9) * (RIGHT - LEFT);
        let y = |value: f64| {
            let share = if self.log {
                (value.max(floor) / floor).log10() / (ceiling / floor).log10().max(1e-9)
            } else {
                value / ceiling
            };
            BOTTOM - share.clamp(0.0, 1.0) * (BOTTOM - TOP)
        };
        let mut svg = String::new();
        let (width, height) = SIZE;
        // Writing to a string cannot fail.
        let _ = write!(
            svg,
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-label="{}"><style>{STYLE}</style>"#,
            self.title
        );
        let _ = write!(svg, r#"<text class="title" x="{LEFT}" y="20">{}</text>"#, self.title);
        for step in &steps {
            let (at, label) = (y(*step), short(*step));
            let _ = write!(
                svg,
                r#"<line class="grid" x1="{LEFT}" x2="{RIGHT}" y1="{at:.1}" y2="{at:.1}"/><text x="{}" y="{:.1}" text-anchor="end">{label}</text>"#,
                LEFT - 6.0,
                at + 4.0
            );
        }
        for (at, label) in &self.marks {
            let _ = write!(
                svg,
                r#"<text x="{:.1}" y="{}" text-anchor="middle">{label}</text>"#,
                x(*at),
                BOTTOM + 18.0
            );
        }
        let middle = (LEFT + RIGHT) / 2.0;
        let _ = write!(
            svg,
            r#"<line class="axis" x1="{LEFT}" x2="{RIGHT}" y1="{BOTTOM}" y2="{BOTTOM}"/><text x="{middle}" y="{}" text-anchor="middle">{}</text><text x="{LEFT}" y="38" text-anchor="end">{}</text>"#,
            BOTTOM + 40.0,
            self.x,
            self.y
        );
        for (at, line) in self.lines.iter().enumerate() {
            let (colour, dash) = (COLOURS[at % COLOURS.len()], DASHES[at % DASHES.len()]);
            let path: Vec<_> =
                line.points.iter().map(|(px, py)| format!("{:.1},{:.1}", x(*px), y(*py))).collect();
            let legend = TOP + 12.0 + 22.0 * at as f64;
            let _ = write!(
                svg,
                r#"<polyline class="line" stroke="{colour}" stroke-dasharray="{dash}" points="{}"/><line class="line" stroke="{colour}" stroke-dasharray="{dash}" x1="{}" x2="{}" y1="{}" y2="{}"/><text x="{}" y="{}">{}</text>"#,
                path.join(" "),
                RIGHT + 14.0,
                RIGHT + 44.0,
                legend - 4.0,
                legend - 4.0,
                RIGHT + 50.0,
                legend,
                line.name
            );
        }
        svg.push_str("</svg>\n");
        svg
    }
}

fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::MAX, f64::MIN), |(least, most), value| (least.min(value), most.max(value)))
}

/// About five round steps up to a value.
fn steps(most: f64) -> Vec<f64> {
    let rough = (most / 5.0).max(1e-6);
    let tenfold = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|times| times * tenfold);
    let step = step.into_iter().find(|step| *step >= rough).unwrap_or(rough);
    (0..=(most / step).ceil().max(1.0) as usize).map(|at| at as f64 * step).collect()
}

fn decades(floor: f64, most: f64) -> Vec<f64> {
    let mut all = vec![floor];
    while let Some(last) = all.last().filter(|last| **last < most).copied() {
        all.push(last * 10.0);
    }
    all
}

fn short(value: f64) -> String {
    if value >= 10.0 || value == 0.0 {
        format!("{value:.0}")
    } else {
        format!("{}", (value * 1000.0).round() / 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_drawn_within_the_frame() {
        for log in [false, true] {
            let points = vec![(0.0, 0.0), (1.0, 950.0), (2.0, 3.5)];
            let marks = vec![(0.0, "0".to_owned())];
            let lines =
                vec![Line { name: "one", points: points.clone() }, Line { name: "two", points }];
            let svg = Plot { title: "t", x: "x", y: "y", log, marks, lines }.svg();
            assert_eq!(svg.matches("<polyline").count(), 2);
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            let first = svg.split("points=\"").nth(1).and_then(|rest| rest.split('"').next());
            for point in first.expect("a line").split(' ') {
                let (x, y) = point.split_once(',').expect("a point");
                let (x, y): (f64, f64) = (x.parse().expect("x"), y.parse().expect("y"));
                assert!((LEFT..=RIGHT).contains(&x) && (TOP..=BOTTOM).contains(&y), "{point}");
            }
        }
        assert_eq!(steps(950.0), [0.0, 200.0, 400.0, 600.0, 800.0, 1000.0]);
    }
}
