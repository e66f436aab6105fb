//! The report: all numbers as JSON, the same as tables in Markdown, and a plot. Times are in microseconds.
//! A difference is called one only where the confidence interval of the ratio leaves out 1.

use std::fmt::Write;
use std::fs;

use anyhow::Result;
use serde_json::{Value, json};

use crate::Settings;
use crate::measure::Outcome;
use crate::rounds::Block;
use crate::runtime::{FLOOR, Runtime};
use crate::stats::{self, Ratio, drift, quantile, ratio, spread};
use crate::{machine, plot};

/// Beyond these the floor itself was too restless for a judgement.
const MOST_DRIFT: f64 = 0.10;
const MOST_SPREAD: f64 = 0.30;

pub fn write(settings: &Settings, runtimes: &[Runtime], outcome: &Outcome) -> Result<()> {
    let report = assemble(settings, runtimes, outcome);
    fs::create_dir_all(&settings.out)?;
    fs::write(
        settings.out.join("report.json"),
        serde_json::to_string_pretty(&report)? + "\n",
    )?;
    fs::write(settings.out.join("report.md"), markdown(&report)?)?;
    fs::write(settings.out.join("plot.svg"), plot::svg(&report))?;
    eprintln!("bench: {}", settings.out.join("report.md").display());
    Ok(())
}

fn assemble(settings: &Settings, runtimes: &[Runtime], outcome: &Outcome) -> Value {
    let programs = runtimes.iter().filter(|runtime| !runtime.in_process());
    let mut versions = serde_json::Map::new();
    for runtime in programs {
        versions.insert(runtime.name.clone(), machine::version(&runtime.path));
    }
    let left_out = settings
        .left_out
        .iter()
        .filter_map(|text| text.split_once('='));
    json!({
        "subject": outcome.subject,
        "device_rules": outcome.device_rules,
        "machine": machine::describe(&outcome.controllers),
        "loadavg_before": outcome.load_before,
        "runtimes": versions,
        "left_out": left_out.map(|(name, why)| json!({"runtime": name, "why": why})).collect::<Vec<_>>(),
        "blocks": outcome.blocks.iter().map(|block| block_json(block, runtimes, &outcome.subject)).collect::<Vec<_>>(),
        "differences": outcome.differences.iter().map(|(variant, runtime, difference)| json!({
            "variant": variant, "runtime": runtime, "fact": difference.fact, "first": difference.first,
            "other": difference.other, "allowed": difference.allowed,
        })).collect::<Vec<_>>(),
    })
}

fn block_json(block: &Block, runtimes: &[Runtime], subject: &str) -> Value {
    let mut operations: Vec<&str> = block
        .samples
        .keys()
        .map(|(operation, _)| operation.as_str())
        .collect();
    operations.extend(block.counts.keys().map(|(operation, _)| operation.as_str()));
    operations.sort_by_key(|name| {
        crate::runtime::OPERATIONS
            .iter()
            .position(|known| known == name)
    });
    operations.dedup();
    let mut rows = Vec::new();
    for operation in &operations {
        for runtime in runtimes {
            rows.extend(row(block, operation, &runtime.name, subject));
        }
    }
    json!({
        "variant": block.variant, "what": block.what, "pace": block.pace,
        "noise": noise(block), "refused": block.refused, "rows": rows,
    })
}

/// The floor's longest series says how quiet the machine was.
fn noise(block: &Block) -> Value {
    let of_floor = block
        .samples
        .iter()
        .filter(|((_, runtime), _)| runtime == FLOOR);
    let run = of_floor
        .max_by_key(|((operation, _), samples)| (operation.starts_with("run"), samples.len()));
    let Some(((operation, _), samples)) = run else {
        return Value::Null;
    };
    let series: Vec<f64> = samples.iter().map(|sample| sample.wall_ns as f64).collect();
    let (drift, spread) = (drift(&series), spread(&series));
    let quiet = drift <= MOST_DRIFT && spread <= MOST_SPREAD;
    json!({"operation": operation, "drift": drift, "spread": spread, "too_noisy": !quiet})
}

fn row(block: &Block, operation: &str, runtime: &str, subject: &str) -> Option<Value> {
    let wall = |name: &str| -> Option<Vec<f64>> {
        let samples = block
            .samples
            .get(&(operation.to_string(), name.to_string()))?;
        Some(
            samples
                .iter()
                .map(|sample| sample.wall_ns as f64 / 1e3)
                .collect(),
        )
    };
    let key = (operation.to_string(), runtime.to_string());
    let counts = block.counts.get(&key);
    let Some(own) = wall(runtime) else {
        return counts
            .filter(|value| value.is_u64())
            .map(|value| json!({"operation": operation, "runtime": runtime, "smallest": value}));
    };
    let samples = &block.samples[&key];
    let cpu: Vec<f64> = samples
        .iter()
        .map(|sample| sample.cpu_ns as f64 / 1e3)
        .collect();
    let faults: Vec<f64> = samples.iter().map(|sample| sample.faults as f64).collect();
    Some(json!({
        "operation": operation, "runtime": runtime, "rounds": own.len(),
        "min_us": quantile(&own, 0.0), "p50_us": stats::median(&own), "p99_us": quantile(&own, 0.99),
        "cpu_us": stats::median(&cpu), "faults": stats::median(&faults), "counts": counts,
        "to_floor": wall(FLOOR).and_then(|floor| ratio(&own, &floor)).map(ratio_json),
        "to_subject": wall(subject).and_then(|subject| ratio(&own, &subject)).map(ratio_json),
    }))
}

fn ratio_json(ratio: Ratio) -> Value {
    json!({"ratio": ratio.value, "low": ratio.low, "high": ratio.high})
}

fn markdown(report: &Value) -> Result<String> {
    let mut out = String::new();
    let machine = &report["machine"];
    let kind = if machine["virtual"] == true {
        ", a virtual machine"
    } else {
        ""
    };
    writeln!(out, "<!-- made by `make bench` -->\n")?;
    writeln!(
        out,
        "Machine: {} CPUs {}{kind}, Linux {}, {} mounts, cgroup controllers: {}; load before {}, after {}.\n",
        machine["cpus"],
        text(&machine["cpu"]),
        text(&machine["kernel"]),
        machine["mounts"],
        list(&machine["cgroup_controllers"]),
        text(&report["loadavg_before"]),
        text(&machine["loadavg"]),
    )?;
    for (name, program) in report["runtimes"].as_object().into_iter().flatten() {
        writeln!(
            out,
            "- {name}: {} ({} kB)",
            text(&program["version"]),
            program["bytes"].as_u64().unwrap_or(0) / 1000
        )?;
    }
    for left in array(&report["left_out"]) {
        writeln!(
            out,
            "- {} is left out: {}",
            text(&left["runtime"]),
            text(&left["why"])
        )?;
    }
    if report["device_rules"] == false {
        out.push_str("- only `limits` has device rules: this host does not let RLIMIT_MEMLOCK be raised, which crun needs then\n");
    }
    for controller in ["memory", "pids"] {
        if !array(&machine["cgroup_controllers"]).any(|name| name == controller) {
            writeln!(
                out,
                "- the smallest {controller}.max is not measured: this host has no such controller"
            )?;
        }
    }
    for block in array(&report["blocks"]) {
        block_markdown(&mut out, block, text(&report["subject"]))?;
    }
    differences_markdown(&mut out, report)?;
    Ok(out)
}

fn block_markdown(out: &mut String, block: &Value, subject: &str) -> Result<()> {
    writeln!(
        out,
        "\n## {}: {}, {}\n",
        text(&block["variant"]),
        text(&block["what"]),
        text(&block["pace"])
    )?;
    let rounds = array(&block["rows"])
        .filter_map(|row| row["rounds"].as_u64())
        .max();
    if let Some(rounds) = rounds {
        writeln!(out, "{rounds} rounds.\n")?;
    }
    let noise = &block["noise"];
    if noise["too_noisy"] == true {
        let percent = |value: &Value| value.as_f64().unwrap_or(f64::NAN) * 100.0;
        writeln!(
            out,
            "**Too noisy to judge**: {} of the floor drifted by {:.0} % (at most {:.0}), its middle half is {:.0} % wide (at \
             most {:.0}).\n",
            text(&noise["operation"]),
            percent(&noise["drift"]),
            MOST_DRIFT * 100.0,
            percent(&noise["spread"]),
            MOST_SPREAD * 100.0,
        )?;
    }
    for (runtime, why) in block["refused"].as_object().into_iter().flatten() {
        writeln!(out, "Not compared: {runtime}: {}\n", text(why))?;
    }
    if array(&block["rows"]).any(|row| row["smallest"].is_u64()) {
        return smallest_markdown(out, block);
    }
    table(out, block, subject)
}

fn table(out: &mut String, block: &Value, subject: &str) -> Result<()> {
    writeln!(
        out,
        "| operation | runtime | min us | p50 us | p99 us | CPU us | RSS kB | calls | faults | forks | execs \
         | × floor (95 %) | × {subject} (95 %) |\n|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
    )?;
    for row in array(&block["rows"]) {
        let number = |value: &Value| {
            value
                .as_f64()
                .map_or("".to_string(), |number| format!("{number:.0}"))
        };
        let counts = &row["counts"];
        let cells = [
            &row["min_us"],
            &row["p50_us"],
            &row["p99_us"],
            &row["cpu_us"],
            &counts["rss_kb"],
            &counts["syscalls"],
            &row["faults"],
            &counts["forks"],
            &counts["execs"],
        ];
        let mut cells: Vec<String> = cells.into_iter().map(number).collect();
        if text(&row["runtime"]) == crate::runtime::IN_PROCESS {
            // They belong to a process that has done more.
            cells[3].clear();
            cells[6].clear();
        }
        let (floor, other) = (ratio_text(&row["to_floor"]), ratio_text(&row["to_subject"]));
        let (operation, runtime) = (text(&row["operation"]), text(&row["runtime"]));
        writeln!(
            out,
            "| {operation} | {runtime} | {} | {floor} | {other} |",
            cells.join(" | ")
        )?;
    }
    Ok(())
}

fn smallest_markdown(out: &mut String, block: &Value) -> Result<()> {
    writeln!(out, "| limit | runtime | smallest |\n|---|---|--:|")?;
    for row in array(&block["rows"]) {
        writeln!(
            out,
            "| {} | {} | {} |",
            text(&row["operation"]),
            text(&row["runtime"]),
            row["smallest"]
        )?;
    }
    Ok(())
}

/// Ratios whose interval holds 1 are no difference; that of a runtime to itself says nothing.
fn ratio_text(ratio: &Value) -> String {
    let part = |name: &str| ratio[name].as_f64();
    let (Some(value), Some(low), Some(high)) = (part("ratio"), part("low"), part("high")) else {
        return String::new();
    };
    if low == 1.0 && high == 1.0 {
        return String::new();
    }
    let same = if low <= 1.0 && high >= 1.0 { " =" } else { "" };
    format!("{value:.2} ({low:.2}-{high:.2}){same}")
}

fn differences_markdown(out: &mut String, report: &Value) -> Result<()> {
    writeln!(out, "\n## What the containers had otherwise\n")?;
    writeln!(
        out,
        "| variant | runtime | fact | {} | other | why it may be |\n|---|---|---|---|---|---|",
        text(&report["subject"])
    )?;
    for difference in array(&report["differences"]) {
        let cells =
            ["variant", "runtime", "fact", "first", "other"].map(|name| text(&difference[name]));
        let why = difference["allowed"].as_str().unwrap_or("it may not");
        writeln!(out, "| {} | {why} |", cells.join(" | "))?;
    }
    Ok(())
}

fn list(value: &Value) -> String {
    let names: Vec<&str> = array(value).map(text).collect();
    if names.is_empty() {
        "none".to_string()
    } else {
        names.join(", ")
    }
}

pub fn array(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
