//! Completion scripts, man pages, `make install`, which puts them where shells and man(1) look, and `make test`.

use crate::support::{Bundle, binary, lines, skipped, wait_until};
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// All files below a directory, relative to it, sorted.
fn files(folder: &Path) -> Vec<String> {
    let mut found = vec![];
    let mut pending = vec![folder.to_path_buf()];
    while let Some(next) = pending.pop() {
        for entry in fs::read_dir(next).expect("read").flatten() {
            let path = entry.path();
            if path.is_dir() {
                pending.push(path);
            } else {
                found.push(
                    path.strip_prefix(folder)
                        .expect("below")
                        .display()
                        .to_string(),
                );
            }
        }
    }
    found.sort();
    found
}

/// The verbs that `--help` shows.
fn verbs(c: &Bundle) -> Vec<String> {
    let help = c.call(&["--help"]).finish().ok().stdout();
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let rows = lines.take_while(|line| !line.is_empty());
    let words = rows.filter_map(|row| row.split_whitespace().next());
    words.map(String::from).collect()
}

/// Whether the program is installed; says so if it is not.
fn installed(program: &str) -> bool {
    let found = Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if found.is_err() {
        skipped(&format!("{program} is not installed"));
    }
    found.is_ok()
}

#[test]
fn shells_accept_their_completion_scripts() {
    let c = bundle!();
    for shell in ["bash", "zsh", "fish"] {
        let script = c
            .call(&["completion", shell])
            .finish()
            .ok()
            .silent()
            .stdout();
        if !installed(shell) {
            continue;
        }
        let file = c.dir.join(shell);
        fs::write(&file, script).expect("write");
        let output = Command::new(shell)
            .arg("-n")
            .arg(&file)
            .output()
            .expect("run");
        assert!(
            output.status.success() && output.stderr.is_empty(),
            "{shell}: {output:?}"
        );
    }
}

/// An interactive shell on a terminal, in which the program notes how it is called instead of doing it.
struct Session {
    shell: Child,
    calls: PathBuf,
}

impl Session {
    fn new(c: &Bundle, shell: &str) -> Session {
        let script = c.call(&["completion", shell]).finish().ok().stdout();
        fs::write(c.path("script"), script).expect("write");
        let (calls, ready) = (c.path("calls"), c.path("ready"));
        let _ = fs::remove_file(&ready);
        let program = format!(
            "cofferdam() {{ if [[ $1 == complete ]]; then {} \"$@\"; else echo \"$*\" >>{calls}; fi; }}",
            binary().display()
        );
        // With Alt-* all offers are inserted.
        let (name, settings) = match shell {
            "bash" => (".bashrc", format!("PROMPT_COMMAND='echo >>{ready}'")),
            _ => (
                ".zshrc",
                format!(
                    "precmd() {{ echo >>{ready}; }}; zle -C every complete-word _generic; bindkey '\\e*' every
                    zstyle ':completion:every:*' completer _all_matches _complete
                    zstyle ':completion:every:*' insert true"
                ),
            ),
        };
        let begin = match shell {
            "bash" => "",
            _ => "autoload -U compinit; compinit -u -D",
        };
        let rc = format!(
            "{begin}\nsource {}\n{program}\n{settings}\n",
            c.path("script")
        );
        fs::write(c.path(name), rc).expect("write");
        let shell = Command::new("script")
            .args(["-qc", &format!("{shell} -i"), "/dev/null"])
            .env("HOME", &c.dir)
            .env("ZDOTDIR", &c.dir)
            .env("TERM", "dumb")
            .env_remove("HISTFILE")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let session = Session {
            shell: shell.expect("run script"),
            calls: calls.into(),
        };
        wait_until("the shell prompts", || Path::new(&ready).exists());
        session
    }

    /// The words of the program's call after this line was completed with all that is offered.
    fn complete(&mut self, line: &str) -> String {
        let _ = fs::remove_file(&self.calls);
        let keys = format!("cofferdam {line}\x1b*\r");
        let input = self.shell.stdin.as_mut().expect("a terminal");
        input.write_all(keys.as_bytes()).expect("type");
        wait_until("the shell has called the program", || {
            fs::read_to_string(&self.calls).is_ok_and(|text| text.ends_with('\n'))
        });
        lines(&self.calls)[0].trim_end().to_string()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

/// The same by fish, which can be asked without a terminal.
fn by_fish(c: &Bundle, line: &str) -> String {
    let script = c.call(&["completion", "fish"]).finish().ok().stdout();
    let program = format!("function cofferdam; {} $argv; end", binary().display());
    let output = Command::new("fish")
        .args(["--no-config", "-c"])
        .arg(format!(
            "{script}\n{program}\ncomplete -C 'cofferdam {line}'"
        ))
        .env("HOME", &c.dir)
        .output()
        .expect("run fish");
    let text = String::from_utf8(output.stdout).expect("text");
    let offers = text.lines().filter_map(|offer| offer.split('\t').next());
    let offers: Vec<&str> = offers.collect();
    let begun = line.rfind(' ').map_or("", |at| &line[..=at]);
    match offers.is_empty() {
        true => line.trim_end().to_string(),
        false => format!("{begun}{}", offers.join(" ")),
    }
}

/// Has the shell complete what people type, while a container goes through its states.
fn completes(mut c: Bundle, mut complete: impl FnMut(&Bundle, &str) -> String) {
    c = c.asks(&["pause"]);
    fs::create_dir_all(c.path("files/folder")).expect("mkdir");
    fs::write(c.path("files/one"), "").expect("write");
    let (root, files, id) = (c.state_root(), c.path("files"), c.id.clone());
    let root = root.display();
    let mut check = |line: String, offered: &str| {
        let begun = line.rfind(' ').map_or("", |at| &line[..=at]);
        let whole = match offered {
            "" => line.trim_end().to_string(),
            words => format!("{begun}{words}"),
        };
        // Each shell has an order of its own.
        let sorted = |text: &str| {
            let mut words: Vec<String> = text
                .split(' ')
                .map(|word| word.trim_end_matches('/').to_string())
                .collect();
            words.sort();
            words
        };
        assert_eq!(sorted(&complete(&c, &line)), sorted(&whole));
    };
    let mut ids = |with: &[&str], without: &[&str]| {
        for verb in with {
            check(format!("--root {root} {verb} "), &id);
        }
        for verb in without {
            check(format!("--root {root} {verb} "), "");
        }
    };
    c.create().ok();
    ids(
        &["start", "state", "delete --force", "mounts list"],
        &["exec", "resume", "create", "run --detach"],
    );
    c.start().ok();
    ids(
        &["exec --tty --env A=B", "pause", "kill --all", "stats"],
        &["start", "resume", "list"],
    );
    c.call(&["pause", &id]).finish().ok();
    ids(&["resume", "kill", "ps"], &["start", "exec", "pause"]);
    c.call(&["resume", &id]).finish().ok();
    c.kill("KILL").ok();
    c.wait_stopped();
    ids(
        &["delete", "state"],
        &["kill", "start", "exec -d", "update"],
    );
    check("cre".into(), "create");
    check("ma".into(), "");
    check(format!("kill {id} KI"), "KILL");
    check(format!("--debug kill {id} SIGTE"), "SIGTERM");
    check("create --pid".into(), "--pid-file --pidfd-socket");
    check("list --format j".into(), "json");
    check("list --format=j".into(), "--format=json");
    check("update --kernel".into(), "");
    check("completion ".into(), "bash fish zsh");
    check(
        format!("create --pid-file {files}/o"),
        &format!("{files}/one"),
    );
    check(format!("exec {id} {files}/o"), &format!("{files}/one"));
    check(
        format!("create --bundle {files}/"),
        &format!("{files}/folder/"),
    );
}

#[test]
fn bash_completes_ids_signals_flags_and_files() {
    let c = bundle!();
    let mut session = Session::new(&c, "bash");
    completes(c, |_, line| session.complete(line));
}

#[test]
fn zsh_completes_ids_signals_flags_and_files() {
    let c = bundle!();
    if !installed("zsh") {
        return;
    }
    let mut session = Session::new(&c, "zsh");
    completes(c, |_, line| session.complete(line));
}

#[test]
fn fish_completes_ids_signals_flags_and_files() {
    let c = bundle!();
    if !installed("fish") {
        return;
    }
    completes(c, by_fish);
}

#[test]
fn an_unknown_shell_is_refused() {
    let c = bundle!();
    c.call(&["completion", "tcsh"])
        .finish()
        .fails_naming("tcsh");
}

#[test]
fn the_man_pages_render_without_a_warning() {
    let c = bundle!();
    let pages = c.path("deep/man8");
    c.call(&["man", &pages]).finish().ok().silent();
    for verb in verbs(&c) {
        let text = fs::read_to_string(format!("{pages}/cofferdam-{verb}.8")).expect(&verb);
        for section in ["NAME", "SYNOPSIS", "\"EXIT STATUS\"", "\"SEE ALSO\""] {
            assert!(
                text.contains(&format!(".SH {section}")),
                "{verb}: {section}"
            );
        }
    }
    let program = fs::read_to_string(format!("{pages}/cofferdam.8")).expect("a page");
    for section in ["FILES", "ENVIRONMENT", "EXAMPLES"] {
        assert!(program.contains(&format!(".SH {section}")), "{section}");
    }
    if !installed("groff") {
        return;
    }
    for page in fs::read_dir(&pages).expect("read").flatten() {
        let mut groff = Command::new("groff");
        groff.args(["-man", "-Tutf8", "-ww", "-z"]).arg(page.path());
        let output = groff.output().expect("run groff");
        assert!(
            output.status.success() && output.stderr.is_empty(),
            "{output:?}"
        );
    }
}

#[test]
fn what_install_installs_uninstall_removes() {
    let c = bundle!();
    if !installed("make") {
        return;
    }
    let root = c.dir.join("root");
    let make = |target: &str, prefix: &str| {
        let binary = binary().display().to_string();
        let mut make = Command::new("make");
        make.current_dir(env!("CARGO_MANIFEST_DIR"))
            .args(["-s", "-o", &binary, target])
            .args([
                format!("PREFIX={prefix}"),
                format!("BINARY={binary}"),
                format!("DESTDIR={}", root.display()),
            ])
            .env_remove("MAKEFLAGS");
        let output = make.output().expect("run make");
        assert!(output.status.success(), "{output:?}");
    };
    make("install", "/usr");
    let others = [
        "bin/cofferdam",
        "share/bash-completion/completions/cofferdam",
        "share/fish/vendor_completions.d/cofferdam.fish",
        "share/man/man8/cofferdam.8",
        "share/zsh/site-functions/_cofferdam",
    ];
    let page = |verb: &String| format!("share/man/man8/cofferdam-{verb}.8");
    let pages: Vec<String> = verbs(&c).iter().map(page).collect();
    let engines = [
        "apparmor",
        "containerd-1.toml",
        "containerd-2.toml",
        "crio.conf",
        "docker.json",
        "podman.conf",
        "runtimeclass.yaml",
    ];
    let engines = engines.map(|name| format!("share/cofferdam/{name}"));
    let others = others.map(String::from).into_iter();
    let all = others.chain(engines.clone()).chain(pages);
    let mut expected: Vec<String> = all.map(|name| format!("usr/{name}")).collect();
    expected.sort();
    assert_eq!(files(&root), expected);
    for file in &expected {
        let size = fs::metadata(root.join(file)).expect("stat").len();
        assert_ne!(size, 0, "{file}");
    }
    for file in engines.map(|name| root.join("usr").join(name)) {
        let text = fs::read_to_string(&file).expect("read");
        let named = text.contains("/usr/bin/cofferdam") || file.ends_with("runtimeclass.yaml");
        assert!(named && !text.contains("/usr/local"), "{file:?}: {text}");
    }
    let foreign = "usr/share/man/man8/cofferdam-shim.8";
    fs::write(root.join(foreign), "another's").expect("write");
    make("uninstall", "/usr");
    assert_eq!(files(&root), [foreign]);
    // Debian's fish looks below /usr only.
    make("install", "/usr/local");
    let fish = "usr/share/fish/vendor_completions.d/cofferdam.fish";
    let installed = files(&root);
    let elsewhere = |file: &&String| !file.starts_with("usr/local/") && *file != foreign;
    let elsewhere: Vec<&String> = installed.iter().filter(elsewhere).collect();
    assert_eq!(elsewhere, [fish]);
    make("uninstall", "/usr/local");
    assert_eq!(files(&root), [foreign]);
}

#[test]
fn make_test_runs_all_checks_and_names_those_that_fail() {
    let c = bundle!();
    let file = |name: &str, line: &str| {
        let path = c.dir.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("mkdir");
        fs::write(
            &path,
            format!(
                "#!/bin/sh\necho ${{0##*/}} $1 >>{}\n{line}\n",
                c.path("calls")
            ),
        )
        .expect("write");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("chmod");
    };
    file("integration/conformance/run.sh", "exit 0");
    fs::copy(
        concat!(env!("CARGO_MANIFEST_DIR"), "/Makefile"),
        c.path("Makefile"),
    )
    .expect("copy");
    let path = format!(
        "{}:{}",
        c.path("bin"),
        std::env::var("PATH").expect("a path")
    );
    for (cargo, said) in [
        ("exit 0", "make: all checks have passed"),
        (
            "[ $1 = clippy ] || exit 1",
            "make: these checks have failed: format tests",
        ),
    ] {
        file(
            "bin/cargo",
            &format!("[ \"$2\" != --version ] || exit 0; {cargo}"),
        );
        let _ = fs::remove_file(c.path("calls"));
        let mut make = Command::new("make");
        make.args(["-o", "setup", "test", "TEST_PACKAGES="])
            .current_dir(&c.dir);
        let output = make
            .env("PATH", &path)
            .env_remove("MAKEFLAGS")
            .output()
            .expect("run make");
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        assert!(text.contains(said), "{text}");
        assert_eq!(output.status.success(), cargo == "exit 0");
        let calls = lines(&c.dir.join("calls"));
        for check in ["cargo fmt", "cargo clippy", "cargo test", "run.sh "] {
            assert!(
                calls.iter().any(|call| call == check.trim()),
                "{check}: {calls:?}"
            );
        }
    }
}
