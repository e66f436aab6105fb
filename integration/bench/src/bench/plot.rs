//! The plot: a row of dots per operation of the base variant, on a logarithmic scale of time. A dot is a median, the
//! line behind it goes from the minimum to the 99th percentile. Plain SVG that can be read on light and dark.

use serde_json::Value;

use crate::report::{array, text};
use crate::runtime::{FLOOR, IN_PROCESS, OPERATIONS};

const COLOURS: [&str; 6] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#888888", "#bbbbbb",
];
const LEFT: f64 = 120.0;
const WIDTH: f64 = 640.0;
const ROW: f64 = 46.0;
const TOP: f64 = 50.0;
/// Microseconds at both ends of the scale.
const SCALE: (f64, f64) = (10.0, 1_000_000.0);

pub fn svg(report: &Value) -> String {
    let base = array(&report["blocks"]).find(|block| block["variant"] == "base");
    let rows: Vec<&Value> = base
        .map(|block| array(&block["rows"]).collect())
        .unwrap_or_default();
    let names: Vec<&str> = report["runtimes"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, _)| name.as_str())
        .collect();
    let height = TOP + ROW * OPERATIONS.len() as f64 + 30.0;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n",
        LEFT + WIDTH + 30.0,
    );
    legend(&mut out, &names);
    grid(&mut out, height);
    for (at, operation) in OPERATIONS.iter().enumerate() {
        let y = TOP + ROW * (at as f64 + 0.5);
        out += &format!(
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{operation}</text>\n",
            LEFT - 10.0,
            y + 4.0
        );
        for row in rows
            .iter()
            .filter(|row| text(&row["operation"]) == *operation)
        {
            dot(&mut out, row, &names, y);
        }
    }
    out + "</svg>\n"
}

fn legend(out: &mut String, names: &[&str]) {
    for (at, name) in names.iter().enumerate() {
        let x = LEFT + 110.0 * at as f64;
        out.push_str(&format!(
            "<circle cx=\"{x}\" cy=\"16\" r=\"5\" fill=\"{}\"/><text x=\"{}\" y=\"20\">{name}</text>\n",
            colour(names, name),
            x + 10.0,
        ));
    }
}

fn grid(out: &mut String, height: f64) {
    for (time, label) in [
        (10.0, "10 us"),
        (100.0, "100 us"),
        (1e3, "1 ms"),
        (1e4, "10 ms"),
        (1e5, "100 ms"),
        (1e6, "1 s"),
    ] {
        let x = place(time);
        let bottom = height - 24.0;
        out.push_str(&format!(
            "<line x1=\"{x}\" y1=\"{TOP}\" x2=\"{x}\" y2=\"{bottom}\" stroke=\"#dddddd\"/>\
             <text x=\"{x}\" y=\"{}\" text-anchor=\"middle\">{label}</text>\n",
            height - 8.0,
        ));
    }
}

fn dot(out: &mut String, row: &Value, names: &[&str], middle: f64) {
    let name = text(&row["runtime"]);
    let part = |key: &str| row[key].as_f64();
    let (Some(low), Some(p50), Some(high)) = (part("min_us"), part("p50_us"), part("p99_us"))
    else {
        return;
    };
    if name == IN_PROCESS {
        return;
    }
    let at = names.iter().position(|known| *known == name).unwrap_or(0) as f64;
    let y = middle + (at - (names.len() as f64 - 1.0) / 2.0) * 8.0;
    let (from, to, colour) = (place(low), place(high), colour(names, name));
    out.push_str(&format!(
        "<line x1=\"{from:.1}\" y1=\"{y}\" x2=\"{to:.1}\" y2=\"{y}\" stroke=\"{colour}\" stroke-opacity=\"0.4\" \
         stroke-width=\"2\"/><circle cx=\"{:.1}\" cy=\"{y}\" r=\"4\" fill=\"{colour}\"/>\n",
        place(p50),
    ));
}

fn place(time: f64) -> f64 {
    let share = (time.clamp(SCALE.0, SCALE.1) / SCALE.0).log10() / (SCALE.1 / SCALE.0).log10();
    LEFT + WIDTH * share
}

fn colour(names: &[&str], name: &str) -> &'static str {
    if name == FLOOR {
        return "#555555";
    }
    let at = names.iter().position(|known| *known == name).unwrap_or(0);
    COLOURS[at % COLOURS.len()]
}
