//! Why a program could not be executed: looks at the file, and at the interpreter that it names.

use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::Error;
use nix::errno::Errno;
use nix::sys::stat::FileStat;
use nix::sys::statvfs::{FsFlags, fstatvfs};

use crate::sys::{self, regular};
use crate::text::fault::{self, Coded, coded};

/// The program headers follow that of the file, as a rule.
const HEAD: usize = 4096;
/// Of a script the kernel reads no more (BINPRM_BUF_SIZE).
const FIRST_LINE: usize = 256;

/// The words for an execve(2) that failed. Under a filter that forbids looking, the errno must do.
pub fn failed_exec(program: &CStr, errno: Errno) -> Error {
    let file = Path::new(OsStr::from_bytes(program.to_bytes()));
    let found = || regular::find(file).ok();
    let missing = || missing_interpreter(file, &found()?);
    let (code, reason) = match errno {
        Errno::ENOENT | Errno::EACCES => ("exec-interpreter-missing", missing()),
        Errno::ENOEXEC => ("exec-format", Some(wrong_format(file, found()))),
        _ => ("", None),
    };
    match reason {
        Some(reason) => refusal(code, errno, file, &reason),
        None => refused(errno, file),
    }
}

/// What to do about a program that is missing.
pub const NOT_THERE: &str = "; name a program that is in the container's file system";

/// A program that cannot be executed, for no other reason than the errno's.
pub fn refused(errno: Errno, file: &Path) -> Error {
    let code = match errno {
        Errno::ENOENT => "exec-not-found",
        Errno::EACCES | Errno::EISDIR => "exec-not-executable",
        _ => "",
    };
    let reason = errno.desc().to_lowercase();
    match errno {
        Errno::ENOENT => refusal(code, errno, file, &format!("{reason}{NOT_THERE}")),
        Errno::EACCES if is_on_noexec(file) => refusal(
            code,
            errno,
            file,
            &format!(
                "{reason}: it is on a mount with the option noexec; add \"exec\" to that mount, or name another program"
            ),
        ),
        _ => refusal(code, errno, file, &reason),
    }
}

/// A source that is missing is named by the error; what to do about it comes last.
pub fn missing_source(error: Error, field: &str) -> Error {
    match fault::errno(&error) {
        Some(Errno::ENOENT) => error.context(format!(
            "nothing is at the source; make it, or correct {field}.source"
        )),
        _ => error,
    }
}

/// mount(2), MS_NOEXEC.
fn is_on_noexec(file: &Path) -> bool {
    let flags = regular::find(file).map(|(found, _)| fstatvfs(&found).map(|found| found.flags()));
    matches!(flags, Ok(Ok(flags)) if flags.contains(FsFlags::ST_NOEXEC))
}

pub fn refusal(code: &str, errno: Errno, file: &Path, reason: &str) -> Error {
    let mut text = format!("exec: {file:?}: {reason}");
    if code == "exec-interpreter-missing" {
        // Scripts match the bare line, in which the file itself seems to be missing.
        let seeming = Errno::ENOENT.desc().to_lowercase();
        text += &format!(" (exec {}: {seeming})", file.display());
    }
    Error::new(Coded {
        errno: errno as i32,
        ..coded(code, text)
    })
}

/// mount_namespaces(7): a user namespace gets a new procfs or sysfs only where the one in sight is whole.
pub fn refused_mount(error: Error, kind: &str) -> Error {
    if sys::errno(&error) == Some(Errno::ENODEV) {
        return error.context(unknown_filesystem(kind));
    }
    let root = match kind {
        "proc" => "/proc",
        "sysfs" => "/sys",
        _ => return error,
    };
    if sys::errno(&error) != Some(Errno::EPERM) {
        return error;
    }
    let table = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default();
    let fact = match covered(&table, root) {
        Some(place) => format!(
            "{place} of the caller is covered, and in a user namespace the kernel then makes no new {kind}"
        ),
        None => {
            format!("the kernel makes a new {kind} only for who owns the namespace that it shows")
        }
    };
    let namespace = if kind == "proc" { "pid" } else { "network" };
    error.context(coded(
        "mount-refused",
        format!("{fact}; run the outer container with an unmasked {root}, or bind {root} and check the {namespace} namespace"),
    ))
}

/// fsopen(2): ENODEV means that the kernel has no such filesystem.
fn unknown_filesystem(kind: &str) -> Coded {
    let text = match kind {
        "none" => "type none is no filesystem; add the option bind or rbind to mount the source"
            .to_string(),
        _ => format!(
            "the kernel has no filesystem {kind}; correct the type, or load its module: modprobe {kind}"
        ),
    };
    coded("filesystem-unknown", text)
}

/// proc_pid_mountinfo(5), field 5: the first mount below `root`, but for directories made to be covered.
fn covered(table: &str, root: &str) -> Option<String> {
    let made_for_it = ["/proc/sys/fs/binfmt_misc", "/proc/fs/nfsd"];
    let below = |place: &&str| {
        let rest = place.strip_prefix(root);
        rest.is_some_and(|rest| rest.starts_with('/')) && !made_for_it.contains(place)
    };
    let mut places = table.lines().filter_map(|line| line.split(' ').nth(4));
    // Of sysfs there are too many of these to tell.
    let found = places.find(below).filter(|_| root == "/proc");
    found.map(str::to_string)
}

/// The interpreter that a script or a program names, if it is not there: execve(2) would say ENOENT,
/// as if the file itself were missing.
pub fn missing_interpreter(file: &Path, found: &(OwnedFd, FileStat)) -> Option<String> {
    let (open, head) = read_head(file, found)?;
    match head.strip_prefix(b"#!") {
        Some(line) => missing_script_interpreter(&line[..line.len().min(FIRST_LINE - 2)]),
        None => missing_loader(&open, &head),
    }
}

fn wrong_format(file: &Path, found: Option<(OwnedFd, FileStat)>) -> String {
    let read = found.and_then(|found| read_head(file, &found));
    let head = read.map(|(_, head)| head).unwrap_or_default();
    let is_text = !head
        .iter()
        .take(FIRST_LINE)
        .any(|byte| byte.is_ascii_control() && !byte.is_ascii_whitespace());
    let reason = match foreign_machine(&head) {
        Some(machine) => format!(
            "built for {machine}, this machine is {}; use an image for this one, or install an emulator (binfmt_misc)",
            std::env::consts::ARCH
        ),
        None if head.is_empty() => "the file is empty (0 bytes)".to_string(),
        None if is_text => {
            "a text without \"#!\" in its first line; begin it with #!/bin/sh, say".to_string()
        }
        None => "neither a program for this machine nor a script that begins with #!".to_string(),
    };
    format!("exec format error: {reason}")
}

/// Returns the file and its first bytes; `None` if it cannot be read. The file may have become a fifo or a device since it was
/// executed.
fn read_head(file: &Path, found: &(OwnedFd, FileStat)) -> Option<(File, Vec<u8>)> {
    let open = regular::read(file, found).ok()?;
    let mut head = Vec::with_capacity(HEAD);
    (&open).take(HEAD as u64).read_to_end(&mut head).ok()?;
    Some((open, head))
}

fn missing_script_interpreter(line: &[u8]) -> Option<String> {
    let line = line.split(|byte| *byte == b'\n').next()?;
    let line = String::from_utf8_lossy(line);
    // Blanks alone end its name (fs/binfmt_script.c).
    let blank = [' ', '\t'];
    let interpreter = line.trim_matches(blank).split(blank).next()?;
    if interpreter.is_empty() || Path::new(interpreter).exists() {
        return None;
    }
    if interpreter.ends_with('\r') {
        return Some(carriage_return(interpreter));
    }
    Some(format!(
        "no such file or directory: its interpreter {interpreter:?} (first line) is missing in the container"
    ))
}

fn carriage_return(interpreter: &str) -> String {
    format!(
        "no such file or directory: its first line ends in a carriage return, so its interpreter is \
         {interpreter:?}; save the script with Unix line ends"
    )
}

/// elf(5), 64 bits, this machine's byte order: the program header that names the dynamic loader.
fn missing_loader(file: &File, head: &[u8]) -> Option<String> {
    const PT_INTERP: u32 = 3;
    let is_native = head.starts_with(b"\x7fELF\x02\x01") && foreign_machine(head).is_none();
    if !is_native {
        return None;
    }
    let (offset, size, count) = (long(head, 32)?, short(head, 54)?, short(head, 56)?);
    for index in 0..count.min(64) {
        let at = offset.checked_add(index * size)?;
        let mut header = [0; 40];
        match head.get(at as usize..).and_then(|rest| rest.get(..40)) {
            Some(here) => header.copy_from_slice(here),
            None => file.read_exact_at(&mut header, at).ok()?,
        }
        if header.starts_with(&PT_INTERP.to_le_bytes()) {
            return missing_file(file, long(&header, 8)?, long(&header, 32)?);
        }
    }
    None
}

fn missing_file(file: &File, at: u64, length: u64) -> Option<String> {
    let mut name = vec![0; length.min(4096) as usize];
    file.read_exact_at(&mut name, at).ok()?;
    let name = String::from_utf8_lossy(&name);
    let name = name.trim_end_matches('\0');
    (!Path::new(name).exists()).then(|| {
        format!(
            "no such file or directory: its dynamic loader {name:?} is missing in the container; \
             is it built for another C library?"
        )
    })
}

fn short(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?).into())
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// The name of the machine, if it is not of this one's family, whose 32-bit programs may run here.
fn foreign_machine(head: &[u8]) -> Option<&'static str> {
    const MACHINES: [(u64, &str, &str); 8] = [
        (3, "x86", "x86_64"),
        (62, "x86_64", "x86_64"),
        (40, "arm", "aarch64"),
        (183, "aarch64", "aarch64"),
        (243, "riscv", "riscv64"),
        (21, "ppc64", "powerpc64"),
        (22, "s390x", "s390x"),
        (258, "loongarch", "loongarch64"),
    ];
    let machine = short(head, 18).filter(|_| head.starts_with(b"\x7fELF"))?;
    let (_, name, family) = MACHINES.iter().find(|(number, ..)| *number == machine)?;
    (*family != std::env::consts::ARCH).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::covered;

    #[test]
    fn what_covers_a_procfs_is_found() {
        let table = "1 0 0:1 / /proc rw - proc proc rw\n2 1 0:2 / /processes rw - a a rw\n4 1 0:4 / /proc/sys/fs/binfmt_misc rw - a a rw\n3 1 0:3 / /proc/kcore rw - a a rw\n";
        assert_eq!(covered(table, "/proc").as_deref(), Some("/proc/kcore"));
        assert_eq!(covered(table, "/sys"), None);
    }
}
