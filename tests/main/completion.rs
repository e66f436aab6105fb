//! Completion scripts, man pages, and `make install`, which puts them where shells and man(1) look.

use crate::support::{Call, Runtime, binary, runtime, say_skipped};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A directory of a test's own, removed with it.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Folder {
        let name = format!("cofferdam-test-{test}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("mkdir");
        Folder(path)
    }

    fn call(&self, args: &[&str]) -> Call {
        Call::new(&self.0, args.to_vec())
    }

    /// All files below, relative, sorted.
    fn files(&self) -> Vec<String> {
        let mut found = vec![];
        let mut pending = vec![self.0.clone()];
        while let Some(next) = pending.pop() {
            for entry in fs::read_dir(next).expect("read").flatten() {
                match entry.path() {
                    path if path.is_dir() => pending.push(path),
                    path => found.push(below(&path, &self.0)),
                }
            }
        }
        found.sort();
        found
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn below(path: &Path, folder: &Path) -> String {
    let path = path.strip_prefix(folder).expect("below");
    path.display().to_string()
}

/// The verbs that `--help` shows.
fn verbs(folder: &Folder) -> Vec<String> {
    let help = folder.call(&["--help"]).finish().ok().stdout();
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let rows = lines.take_while(|line| !line.is_empty());
    let words = rows.filter_map(|row| row.split_whitespace().next());
    words.map(String::from).collect()
}

/// Whether the program is installed; says so if it is not.
fn installed(test: &str, program: &str) -> bool {
    let found = Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if found.is_err() {
        say_skipped(test, &format!("{program} is not installed"));
    }
    found.is_ok()
}

fn is_ours() -> bool {
    let ours = runtime() == Runtime::Cofferdam;
    if !ours {
        say_skipped(module_path!(), "other runtimes have no such verbs");
    }
    ours
}

#[test]
fn shells_accept_their_completion_scripts() {
    if !is_ours() {
        return;
    }
    let folder = Folder::new("shells");
    let verbs = verbs(&folder);
    assert!(
        verbs.len() > 15 && !verbs.contains(&"man".to_string()),
        "{verbs:?}"
    );
    for shell in ["bash", "zsh", "fish"] {
        let script = folder
            .call(&["completion", shell])
            .finish()
            .ok()
            .silent()
            .stdout();
        for verb in &verbs {
            assert!(script.contains(verb), "{shell}: {verb}");
        }
        if !installed("shells_accept_their_completion_scripts", shell) {
            continue;
        }
        let file = folder.0.join(shell);
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
    if !is_ours() || !installed("bash_completes_verbs_and_flags", "bash") {
        return;
    }
    let folder = Folder::new("bash");
    let file = folder.0.join("script");
    let script = folder.call(&["completion", "bash"]).finish().ok().stdout();
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
fn an_unknown_shell_is_refused() {
    if !is_ours() {
        return;
    }
    let folder = Folder::new("unknown");
    folder
        .call(&["completion", "tcsh"])
        .finish()
        .fails_naming("tcsh");
}

#[test]
fn the_man_pages_render_without_a_warning() {
    if !is_ours() {
        return;
    }
    let folder = Folder::new("man");
    let pages = folder.0.join("deep/man8").display().to_string();
    folder.call(&["man", &pages]).finish().ok().silent();
    for verb in verbs(&folder) {
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
    if !installed("the_man_pages_render_without_a_warning", "groff") {
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
    if !is_ours() || !installed("what_install_installs_uninstall_removes", "make") {
        return;
    }
    let wanted = verbs(&Folder::new("verbs"));
    let folder = Folder::new("install");
    let make = |target: &str| {
        let binary = binary().display().to_string();
        let mut make = Command::new("make");
        make.current_dir(env!("CARGO_MANIFEST_DIR"))
            .args(["-s", "-o", &binary, target, "PREFIX=/usr"])
            .args([
                format!("BINARY={binary}"),
                format!("DESTDIR={}", folder.0.display()),
            ])
            .env_remove("MAKEFLAGS");
        let output = make.output().expect("run make");
        assert!(output.status.success(), "{output:?}");
    };
    make("install");
    let mut expected: Vec<String> = [
        "usr/bin/cofferdam",
        "usr/share/bash-completion/completions/cofferdam",
        "usr/share/fish/vendor_completions.d/cofferdam.fish",
        "usr/share/man/man8/cofferdam.8",
        "usr/share/zsh/site-functions/_cofferdam",
    ]
    .map(String::from)
    .to_vec();
    expected.extend(
        wanted
            .iter()
            .map(|verb| format!("usr/share/man/man8/cofferdam-{verb}.8")),
    );
    expected.sort();
    let installed = folder.files();
    installed
        .iter()
        .filter(|file| *file != "usr/bin/cofferdam")
        .for_each(|file| {
            assert!(
                !fs::read(folder.0.join(file)).expect("read").is_empty(),
                "{file}"
            );
        });
    assert_eq!(installed, expected);
    let foreign = folder.0.join("usr/share/man/man8/cofferdam-shim.8");
    fs::write(&foreign, "another's").expect("write");
    make("uninstall");
    assert_eq!(folder.files(), [below(&foreign, &folder.0)]);
}
