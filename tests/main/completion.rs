//! Completion scripts, man pages, and `make install`, which puts them where shells and man(1) look.

use crate::support::{Bundle, binary, skipped};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

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
    let verbs = verbs(&c);
    assert!(
        verbs.len() > 15 && !verbs.contains(&"man".to_string()),
        "{verbs:?}"
    );
    for shell in ["bash", "zsh", "fish"] {
        let script = c
            .call(&["completion", shell])
            .finish()
            .ok()
            .silent()
            .stdout();
        for verb in &verbs {
            assert!(script.contains(verb), "{shell}: {verb}");
        }
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

#[test]
fn bash_completes_verbs_and_flags() {
    if !installed("bash") {
        return;
    }
    let c = bundle!();
    let file = c.dir.join("script");
    let script = c.call(&["completion", "bash"]).finish().ok().stdout();
    fs::write(&file, script).expect("write");
    let complete = |words: &str| {
        let last = words.split(' ').count() - 1;
        let line = format!(
            "source {}; COMP_WORDS=({words}); COMP_CWORD={last}; _cofferdam cofferdam \
             \"${{COMP_WORDS[{last}]}}\" \"${{COMP_WORDS[{}]}}\"; echo \"${{COMPREPLY[@]}}\"",
            file.display(),
            last - 1
        );
        let output = Command::new("bash")
            .args(["-c", &line])
            .output()
            .expect("run");
        String::from_utf8(output.stdout)
            .expect("text")
            .trim()
            .to_string()
    };
    assert_eq!(complete("cofferdam cre"), "create");
    assert_eq!(
        complete("cofferdam create --pid"),
        "--pid-file --pidfd-socket"
    );
    assert_eq!(complete("cofferdam list --format j"), "json");
    assert_eq!(complete("cofferdam update --kernel"), "");
    assert_eq!(complete("cofferdam ma"), "");
}

#[test]
fn bash_completes_the_names_of_containers() {
    if !installed("bash") {
        return;
    }
    let c = bundle!().asks(&["pause"]);
    c.create().ok();
    let file = c.dir.join("script");
    let script = c.call(&["completion", "bash"]).finish().ok().stdout();
    fs::write(&file, script).expect("write");
    let complete = |words: &str| {
        let words = format!(
            "{} --root {} {words}",
            binary().display(),
            c.state_root().display()
        );
        let line = format!(
            "source {}; COMP_WORDS=({words} ''); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             _cofferdam_containers {} '' \"${{COMP_WORDS[COMP_CWORD - 1]}}\"; echo \"${{COMPREPLY[@]}}\"",
            file.display(),
            binary().display()
        );
        let output = Command::new("bash")
            .args(["-c", &line])
            .output()
            .expect("run");
        String::from_utf8_lossy(&output.stdout).trim().to_string()
    };
    for words in ["start", "kill", "delete --force", "mounts list", "stats"] {
        assert_eq!(complete(words), c.id, "{words}");
    }
    for words in ["create", "mounts", "kill x", "ps --format", "list"] {
        assert!(!complete(words).contains(&c.id), "{words}");
    }
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
    let make = |target: &str| {
        let binary = binary().display().to_string();
        let mut make = Command::new("make");
        make.current_dir(env!("CARGO_MANIFEST_DIR"))
            .args(["-s", "-o", &binary, target, "PREFIX=/usr"])
            .args([
                format!("BINARY={binary}"),
                format!("DESTDIR={}", root.display()),
            ])
            .env_remove("MAKEFLAGS");
        let output = make.output().expect("run make");
        assert!(output.status.success(), "{output:?}");
    };
    make("install");
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
    make("uninstall");
    assert_eq!(files(&root), [foreign]);
}
