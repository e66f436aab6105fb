//! `stats`: the table, its JSON, and the terminal on which it renews itself.

use crate::support::terminal::Terminal;
use crate::support::{Bundle, Output, has_controller};
use serde_json::{Value, json};

fn stats(c: &Bundle, args: &[&str]) -> Output {
    c.call(&[&["stats"], args].concat()).finish()
}

fn row(c: &Bundle) -> Value {
    let output = stats(c, &["--format", "json", &c.id]).ok().silent();
    serde_json::from_str(&output.stdout()).expect("one object")
}

/// The names in the table below the heading.
fn names(output: &Output) -> String {
    let text = output.stdout();
    let rows = text.lines().skip(1);
    let names: Vec<&str> = rows
        .filter_map(|row| row.split_whitespace().next())
        .collect();
    names.join(" ")
}

#[test]
fn without_a_terminal_it_prints_once() {
    let c = bundle!().asks(&["pause"]);
    c.up();
    let output = stats(&c, &[]).ok().silent();
    let text = output.stdout();
    assert!(text.starts_with("ID "), "{text}");
    assert!(
        text.contains("CPU %") && text.contains("THROTTLED"),
        "{text}"
    );
    assert_eq!(names(&output), c.id);
    assert!(!text.contains('\x1b'), "{text:?}");
}

#[test]
fn all_means_those_that_run() {
    let c = bundle!().asks(&["pause"]);
    assert_eq!(names(&stats(&c, &[]).ok()), "");
    c.create().ok();
    assert_eq!(names(&stats(&c, &[]).ok()), "");
    assert_eq!(names(&stats(&c, &[&c.id]).ok()), c.id);
    c.start().ok();
    c.call(&["pause", &c.id]).finish().ok();
    assert_eq!(names(&stats(&c, &[]).ok()), c.id);
}

#[test]
fn who_names_a_container_learns_that_it_does_not_run() {
    let c = bundle!().asks(&["exit 0"]);
    stats(&c, &[&c.id]).fails_with("does not exist");
    c.up();
    c.wait_stopped();
    stats(&c, &[&c.id]).fails_with("is not running");
    assert_eq!(names(&stats(&c, &[]).ok()), "");
}

#[test]
fn json_is_an_object_a_line() {
    let c = bundle!().asks(&["pause"]);
    c.up();
    let row = row(&c);
    assert_eq!(row["id"], json!(c.id));
    assert_eq!(row["pids"], 1);
    assert!(row["cpu_percent"].as_f64() < Some(50.0), "{row}");
    assert_eq!(row["memory_usage"].is_null(), !has_controller("memory"));
}

#[test]
fn a_busy_container_takes_its_cpu() {
    let c = bundle!().asks(&["spin"]);
    c.up();
    let row = row(&c);
    assert!(row["cpu_percent"].as_f64() > Some(5.0), "{row}");
}

#[test]
fn a_terminal_shows_it_until_q() {
    let c = bundle!().asks(&["pause"]);
    c.up();
    let (mut screen, end) = Terminal::pair(200, 10);
    let before = screen.modes();
    let running = c.call(&["stats", &c.id]).on_terminal(end).spawn();
    let seen = screen.read_until("THROTTLED");
    assert!(seen.contains("\x1b[?1049h"), "{seen:?}");
    assert_ne!(screen.modes(), before);
    screen.write("x");
    screen.resize(20, 10);
    // The heading, as far as it fits now.
    screen.read_until("\x1b[H\x1b[KID");
    screen.write("q");
    running.wait().exits(0);
    assert!(screen.read_some().ends_with("\x1b[?25h\x1b[?1049l"));
    assert_eq!(screen.modes(), before);
}

#[test]
fn a_terminal_shows_it_until_an_interrupt() {
    let c = bundle!().asks(&["pause"]);
    c.up();
    let (mut screen, end) = Terminal::pair(200, 10);
    let before = screen.modes();
    let running = c.call(&["stats"]).on_terminal(end).spawn();
    screen.read_until("THROTTLED");
    screen.write("\x03");
    running.wait().exits(0);
    assert!(screen.read_some().ends_with("\x1b[?1049l"));
    assert_eq!(screen.modes(), before);
}

#[test]
fn a_terminal_shows_it_until_the_container_ends() {
    let c = bundle!().asks(&["pause"]);
    c.up();
    let (mut screen, end) = Terminal::pair(200, 10);
    let running = c.call(&["stats", &c.id]).on_terminal(end).spawn();
    screen.read_until(&c.id);
    c.delete(&["--force"]).ok();
    running.wait().exits(0);
}

#[test]
fn on_a_terminal_it_prints_once_if_told_so() {
    let c = bundle!().asks(&["pause"]);
    c.up();
    let (mut screen, end) = Terminal::pair(200, 10);
    let call = c.call(&["stats", "--no-stream"]).on_terminal(end);
    call.finish().ok();
    let seen = screen.read_until(&c.id);
    assert!(!seen.contains('\x1b'), "{seen:?}");
}
