//! Why a program could not be executed: looks at the file, and at the interpreter that it names.

use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Error, anyhow};
use nix::errno::Errno;

/// The kernel reads this much of a file to see what it is (BINPRM_BUF_SIZE).
const HEAD: usize = 256;

/// The words for an execve(2) that failed. Under a filter that forbids looking, the errno must do.
pub fn failed_exec(program: &CStr, errno: Errno) -> Error {
    let file = Path::new(OsStr::from_bytes(program.to_bytes()));
    let reason = match errno {
        Errno::ENOENT | Errno::EACCES => missing_interpreter(file),
        Errno::ENOEXEC => Some(wrong_format(file)),
        _ => None,
    };
    let reason = reason.unwrap_or_else(|| errno.desc().to_lowercase());
    anyhow!("exec: {file:?}: {reason}")
}

/// The interpreter that a script or a program names, if it is not there: execve(2) would say ENOENT,
/// as if the file itself were missing.
pub fn missing_interpreter(file: &Path) -> Option<String> {
    let (open, head) = read_head(file)?;
    match head.strip_prefix(b"#!") {
        Some(line) => missing_script_interpreter(line),
        None => missing_loader(&open, &head),
    }
}

fn wrong_format(file: &Path) -> String {
    let machine = read_head(file).and_then(|(_, head)| foreign_machine(&head));
    match machine {
        Some(machine) => format!(
            "exec format error: built for {machine}, this machine is {}",
            std::env::consts::ARCH
        ),
        None => {
            "exec format error: neither a program for this machine nor a script that begins with #!"
                .to_string()
        }
    }
}

fn read_head(file: &Path) -> Option<(File, Vec<u8>)> {
    let open = File::open(file).ok()?;
    let mut head = Vec::with_capacity(HEAD);
    (&open).take(HEAD as u64).read_to_end(&mut head).ok()?;
    Some((open, head))
}

fn missing_script_interpreter(line: &[u8]) -> Option<String> {
    let line = line.split(|byte| *byte == b'\n').next()?;
    let line = String::from_utf8_lossy(line);
    let interpreter = line.split_whitespace().next()?;
    if Path::new(interpreter).exists() {
        return line
            .ends_with('\r')
            .then(|| carriage_return(interpreter))
            .filter(|_| !line.contains(' '));
    }
    Some(format!(
        "no such file or directory: its interpreter {interpreter:?} (first line) is missing in the container"
    ))
}

fn carriage_return(interpreter: &str) -> String {
    format!(
        "no such file or directory: its first line ends in a carriage return, so its interpreter is \
         {:?}; save the script with Unix line ends",
        format!("{interpreter}\r")
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
        let mut header = [0u8; 40];
        file.read_exact_at(&mut header, offset.checked_add(index * size)?)
            .ok()?;
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
