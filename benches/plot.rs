//! Plots cost against size as an SVG, with logarithmic axes and one line for each series.

use std::fmt::Write;

/// A line: its name, its colour, whether it is dashed, and (rules, milliseconds).
pub struct Series {
    pub name: String,
    pub colour: &'static str,
    pub dashed: bool,
    pub points: Vec<(f64, f64)>,
}

const LEFT: f64 = 60.0;
const TOP: f64 = 20.0;
const WIDTH: f64 = 520.0;
const HEIGHT: f64 = 320.0;

/// Returns the picture. Axes cover whole decades.
pub fn svg(series: &[Series]) -> String {
    let points = || series.iter().flat_map(|series| &series.points);
    let decades = |values: &mut dyn Iterator<Item = f64>| {
        let (low, high) = values.fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)));
        (low.log10().floor(), high.log10().ceil())
    };
    let (x_axis, y_axis) = (decades(&mut points().map(|p| p.0)), decades(&mut points().map(|p| p.1)));
    let x = |rules: f64| LEFT + WIDTH * (rules.log10() - x_axis.0) / (x_axis.1 - x_axis.0);
    let y = |ms: f64| TOP + HEIGHT * (y_axis.1 - ms.log10()) / (y_axis.1 - y_axis.0);
    let mut out = String::from(concat!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 820 390\" font-family=\"sans-serif\" font-size=\"12\">\n",
        "<title>Cost of a scrape against the number of rules</title>\n<rect width=\"820\" height=\"390\" fill=\"#fff\"/>\n",
    ));
    for decade in x_axis.0 as i32..=x_axis.1 as i32 {
        let (value, at) = (10f64.powi(decade), x(10f64.powi(decade)));
        _ = writeln!(
            out,
            "<path d=\"M{at:.1} {TOP}v{HEIGHT}\" stroke=\"#ddd\"/><text x=\"{at:.1}\" y=\"358\" text-anchor=\"middle\">{value}</text>"
        );
    }
    for decade in y_axis.0 as i32..=y_axis.1 as i32 {
        let (value, at) = (10f64.powi(decade), y(10f64.powi(decade)));
        let label = at + 4.0;
        _ = writeln!(
            out,
            "<path d=\"M{LEFT} {at:.1}h{WIDTH}\" stroke=\"#ddd\"/><text x=\"54\" y=\"{label:.1}\" text-anchor=\"end\">{value} ms</text>"
        );
    }
    _ = writeln!(out, "<text x=\"320\" y=\"380\" text-anchor=\"middle\">rules in Calico's chains</text>");
    for (row, Series { name, colour, dashed, points }) in series.iter().enumerate() {
        let dash = if *dashed { " stroke-dasharray=\"5 4\"" } else { "" };
        let line: Vec<String> = points.iter().map(|&(rules, ms)| format!("{:.1},{:.1}", x(rules), y(ms))).collect();
        _ = writeln!(out, "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"{dash}/>", line.join(" "));
        let at = 40 + 22 * row;
        _ = writeln!(
            out,
            "<path d=\"M600 {at}h28\" stroke=\"{colour}\" stroke-width=\"2\"{dash}/><text x=\"636\" y=\"{}\">{name}</text>",
            at + 4
        );
    }
    out + "</svg>\n"
}
