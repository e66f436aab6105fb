//! Checks rules of the source for which clippy has no lint: the length of files, how much `unsafe` there is and where, and
//! which files see the spec and call with paths. src/lib.rs has the lints.
//! Works on text, and relies on rustfmt: what opens a line closes at the same indentation.
//! A failure lists every place as `file:line: what`.

use std::fs;
use std::path::Path;

const LONGEST_FILE: usize = 500;

/// How often src says `unsafe`. Whoever changes this number has read the block that came, or is glad of one that went.
const UNSAFE: usize = 124;

/// What runs in the container, or on its way there.
const CHILD: [&str; 2] = ["src/init/", "src/programs/hooks.rs"];

/// Where the child calls with a path, how often, and why that is no way out of the container.
const PATHS_OF_THE_CHILD: [(&str, usize, &str); 9] = [
    (
        "src/init/exec.rs",
        2,
        "looks the program up, below the new root",
    ),
    (
        "src/init/explain.rs",
        6,
        "looks at files below the new root",
    ),
    (
        "src/init/filesystem.rs",
        3,
        "directories of an overlay, as the kernel would open them, and a tmpfs by its descriptor's name",
    ),
    (
        "src/init/rootfs.rs",
        13,
        "the anchor before the pivot, then the root that it is in",
    ),
    (
        "src/init/moving.rs",
        3,
        "the root and the namespace that it is in, and mounts of the old root before that is left",
    ),
    (
        "src/init/hotplug.rs",
        1,
        "a descriptor's name in the own procfs",
    ),
    (
        "src/init/masks.rs",
        1,
        "the directory of a tmpfs that it has just made",
    ),
    (
        "src/init/procfs.rs",
        1,
        "the container's root, which becomes that of a helper",
    ),
    ("src/programs/hooks.rs", 1, "runs what the config names"),
];

/// Calls that resolve a path from the root or the current directory; those of `std::fs` are known by their small letter.
const PATH_CALLS: [&str; 25] = [
    ".canonicalize()",
    ".exists()",
    ".is_dir()",
    ".is_file()",
    ".is_symlink()",
    ".read_dir()",
    ".read_link()",
    ".symlink_metadata()",
    ".try_exists()",
    "Command::new(",
    "File::create(",
    "File::create_new(",
    "File::open(",
    "OpenOptions",
    "UnixListener::bind(",
    "UnixStream::connect(",
    "fcntl::open(",
    "mount::mount(",
    "regular::find(",
    "regular::read(",
    "set_current_dir(",
    "umount2(",
    "unistd::chdir(",
    "unistd::chroot(",
    "path::open_directory(",
];

#[test]
fn files_are_short() {
    check(long_file);
}

#[test]
fn unsafe_is_in_sys_only() {
    check(misplaced_unsafe);
}

#[test]
fn the_child_never_sees_the_spec() {
    check(spec_in_init);
}

#[test]
fn nothing_is_left_to_do() {
    check(reminders);
}

#[test]
fn unsafe_code_is_counted() {
    let sources = sources();
    let all = sources.iter().flat_map(|file| words(&file.program));
    let count = all.filter(|word| *word == "unsafe").count();
    assert_eq!(count, UNSAFE, "src says unsafe as often as is noted");
}

#[test]
fn the_child_calls_with_no_path() {
    check(paths_of_the_child);
}

/// A rule that sees nothing would pass as well.
#[test]
fn every_rule_sees_its_offence() {
    let line = "    let x = 1; // unsafe, \"TODO\n";
    let tests = |code: &str| format!("#[cfg(test)]\nmod tests {{\n{code}}}\n");
    let many = line.repeat(LONGEST_FILE);
    let a = "src/a.rs";
    let child = "src/init/a.rs";
    offends(long_file, a, &line.repeat(LONGEST_FILE + 1), 1);
    offends(long_file, a, &(many.clone() + &tests(&many) + "\n"), 1);
    offends(long_file, a, &(many.clone() + &tests(&many)), 0);
    offends(misplaced_unsafe, a, "unsafe { exit() }\n", 1);
    offends(misplaced_unsafe, a, "#![deny(unsafe_code)]\n", 0);
    offends(
        misplaced_unsafe,
        a,
        "'\"'; r#\"\" unsafe\"#; 'a'; unsafe\n",
        1,
    );
    offends(spec_in_init, child, "use oci_spec::runtime::Spec;\n", 1);
    offends(reminders, a, "// TODO: this\n", 1);
    offends(paths_of_the_child, child, "std::fs::read(b)\n", 1);
    offends(
        paths_of_the_child,
        child,
        "use std::fs::*;\nfs::read(b)\n",
        2,
    );
    offends(paths_of_the_child, child, "File::open(b)\nb.exists()\n", 2);
    offends(
        paths_of_the_child,
        child,
        "statfs::a; fs::File::from(b)\n",
        0,
    );
    offends(paths_of_the_child, child, "nix::unistd::fchdir(b)\n", 0);
    offends(paths_of_the_child, a, "std::fs::read(b)\n", 0);
    offends(paths_of_the_child, "src/programs/hooks.rs", "", 1);
}

fn offends(rule: Rule, name: &str, text: &str, count: usize) {
    let found = rule(&Source::new(name.to_string(), text.to_string()));
    assert_eq!(found.len(), count, "{text}: {found:?}");
}

type Rule = fn(&Source) -> Vec<String>;

fn long_file(file: &Source) -> Vec<String> {
    let lines = file.text.lines().count() - file.test_lines;
    let long = format!("{}: {lines} lines, {LONGEST_FILE} are allowed", file.name);
    Vec::from_iter((lines > LONGEST_FILE).then_some(long))
}

fn misplaced_unsafe(file: &Source) -> Vec<String> {
    // The C library calls main, which an attribute must export: unsafe code in the sense of the compiler.
    if file.name.starts_with("src/sys/") || file.name == "src/main.rs" {
        return Vec::new();
    }
    file.lines_where(|line| words(line).any(|word| word == "unsafe"))
}

fn spec_in_init(file: &Source) -> Vec<String> {
    if !file.name.starts_with("src/init/") {
        return Vec::new();
    }
    file.lines_where(|line| words(line).any(|word| word == "oci_spec"))
}

fn reminders(file: &Source) -> Vec<String> {
    let left = |line: &str| words(line).any(|word| ["TODO", "FIXME"].contains(&word));
    matching(&file.name, &file.text, left)
}

fn paths_of_the_child(file: &Source) -> Vec<String> {
    if !CHILD.iter().any(|place| file.name.starts_with(place)) {
        return Vec::new();
    }
    let known = PATHS_OF_THE_CHILD
        .iter()
        .find(|(name, ..)| *name == file.name);
    let (count, reason) = known.map_or((0, ""), |(_, count, reason)| (*count, *reason));
    let found = file.lines_where(calls_with_path);
    if found.len() < count {
        let what = format!(
            "{} calls with a path, {count} are noted ({reason})",
            found.len()
        );
        return vec![format!("{}: {what}", file.name)];
    }
    if found.len() == count {
        Vec::new()
    } else {
        found
    }
}

fn calls_with_path(line: &str) -> bool {
    let function = |(at, _): (usize, &str)| {
        let before = line[..at].chars().next_back();
        let after = line[at + 4..].chars().next();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_')
            && after.is_some_and(|c| c.is_lowercase() || c == '*')
    };
    line.match_indices("fs::").any(function) || PATH_CALLS.iter().any(|call| line.contains(call))
}

fn check(rule: Rule) {
    let found: Vec<String> = sources().iter().flat_map(rule).collect();
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

/// One file, as it is and as a compiler sees it.
struct Source {
    /// From the root of the repository.
    name: String,
    text: String,
    /// Without comments, contents of strings, and inline tests; each line in its place.
    program: String,
    test_lines: usize,
}

impl Source {
    fn new(name: String, text: String) -> Source {
        let (program, test_lines) = without_tests(&without_words(&text));
        Source {
            name,
            text,
            program,
            test_lines,
        }
    }

    fn lines_where(&self, holds: impl Fn(&str) -> bool) -> Vec<String> {
        matching(&self.name, &self.program, holds)
    }
}

fn matching(name: &str, text: &str, holds: impl Fn(&str) -> bool) -> Vec<String> {
    let lines = text.lines().enumerate().filter(|(_, line)| holds(line));
    let place = |(index, line): (usize, &str)| format!("{name}:{}: {}", index + 1, line.trim());
    lines.map(place).collect()
}

/// All of src but the files that hold nothing but tests.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut pending = vec![root.join("src")];
    while let Some(next) = pending.pop() {
        for entry in fs::read_dir(next).expect("read src").flatten() {
            let path = entry.path();
            let name = path.strip_prefix(root).expect("below the root");
            let name = name.display().to_string();
            if path.is_dir() {
                pending.push(path);
            } else if name.ends_with(".rs")
                && !name.ends_with("/tests.rs")
                && !name.ends_with("/golden.rs")
            {
                let text = fs::read_to_string(&path).expect("read a source file");
                found.push(Source::new(name, text));
            }
        }
    }
    assert!(found.len() > 10, "src was not found");
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

/// Blanks inline test modules; also says how many lines they have.
fn without_tests(code: &str) -> (String, usize) {
    let mut program = String::new();
    let mut tests = 0;
    let mut end: Option<String> = None;
    let mut lines = code.lines().peekable();
    while let Some(line) = lines.next() {
        let opens = line.trim() == "#[cfg(test)]"
            && lines
                .peek()
                .is_some_and(|next| next.trim_end().ends_with('{'));
        if opens && end.is_none() {
            end = Some(line.replace("#[cfg(test)]", "}"));
        }
        if let Some(last) = &end {
            tests += 1;
            if line.trim_end() == last.trim_end() {
                end = None;
            }
        } else {
            program.push_str(line);
        }
        program.push('\n');
    }
    (program, tests)
}

/// Takes out comments and what is between quotes.
fn without_words(text: &str) -> String {
    let mut code = String::new();
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let in_word = code.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let (length, kept) = match next {
            '/' if rest.starts_with("//") => (rest.find('\n').unwrap_or(rest.len()), ""),
            '/' if rest.starts_with("/*") => (until(rest, 2, "*/"), ""),
            '"' => (string(rest), "\"\""),
            'b' | 'c' if !in_word && raw_string(&rest[1..]) > 0 => (1, ""),
            'r' if !in_word && raw_string(rest) > 0 => (raw_string(rest), "\"\""),
            '\'' => character(rest),
            other => (other.len_utf8(), &rest[..other.len_utf8()]),
        };
        let (token, after) = rest.split_at(length);
        code.push_str(kept);
        if kept != token {
            code.extend(token.chars().filter(|c| *c == '\n'));
        }
        rest = after;
    }
    code
}

/// The length up to the end of the first `end` after `from`, or of all.
fn until(text: &str, from: usize, end: &str) -> usize {
    let found = text[from..].find(end);
    found.map_or(text.len(), |at| from + at + end.len())
}

fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            '"' if !escaped => return at + 1,
            _ => escaped = c == '\\' && !escaped,
        }
    }
    text.len()
}

/// Its length; 0 if it is none.
fn raw_string(text: &str) -> usize {
    let after = text.strip_prefix('r').unwrap_or_default();
    let hashes = after.len() - after.trim_start_matches('#').len();
    if !after[hashes..].starts_with('"') {
        return 0;
    }
    until(text, hashes + 2, &format!("\"{}", "#".repeat(hashes)))
}

/// A character, or the quote of a lifetime.
fn character(text: &str) -> (usize, &str) {
    let mut after = text.chars().skip(1);
    match (after.next(), after.next()) {
        (Some('\\'), _) => (until(text, 3, "'"), "' '"),
        (Some(c), Some('\'')) => (c.len_utf8() + 2, "' '"),
        _ => (1, "'"),
    }
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_alphanumeric() && c != '_')
}
