//! The root filesystem: three programs, and the directories that configs mount on. Two programs are a few
//! instructions in the smallest file that the kernel executes, so that it is the runtime that is measured.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};

/// exit(0)
const TRUE: &[u8] = &[0x31, 0xff, 0xb8, 0x3c, 0, 0, 0, 0x0f, 0x05];
/// pause() for ever
const PAUSE: &[u8] = &[0xb8, 0x22, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7];
const LOADED_AT: u64 = 0x40_0000;
const HEADERS: u64 = 64 + 56;

pub fn make(work: &Path, probe: &Path) -> Result<()> {
    let root = work.join("rootfs");
    for directory in ["dev", "etc", "mnt", "proc", "run", "sys", "tmp", "var/tmp"] {
        fs::create_dir_all(root.join(directory))?;
    }
    for number in 0..100 {
        fs::create_dir(root.join(format!("mnt/{number}")))?;
    }
    fs::create_dir(work.join("volume"))?;
    fs::write(work.join("file"), "")?;
    program(&root.join("true"), &elf(TRUE))?;
    program(&root.join("pause"), &elf(PAUSE))?;
    let probe = fs::read(probe).with_context(|| probe.display().to_string())?;
    program(&root.join("probe"), &probe)
}

fn program(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes)?;
    Ok(fs::set_permissions(
        path,
        fs::Permissions::from_mode(0o755),
    )?)
}

/// An ELF header, one program header that loads all of the file, and the code.
fn elf(code: &[u8]) -> Vec<u8> {
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let length = HEADERS + code.len() as u64;
    for half in [2u16, 62] {
        file.extend(half.to_le_bytes());
    }
    file.extend(1u32.to_le_bytes());
    for word in [LOADED_AT + HEADERS, 64, 0] {
        file.extend(word.to_le_bytes());
    }
    file.extend(0u32.to_le_bytes());
    for half in [64u16, 56, 1, 0, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    // PT_LOAD, readable and executable.
    for half in [1u32, 5] {
        file.extend(half.to_le_bytes());
    }
    for word in [0, LOADED_AT, LOADED_AT, length, length, 0x1000] {
        file.extend(word.to_le_bytes());
    }
    file.extend(code);
    file
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn the_smallest_program_runs() {
        let path = std::env::temp_dir().join(format!("bench-true-{}", std::process::id()));
        program(&path, &elf(TRUE)).unwrap();
        let status = Command::new(&path).status().unwrap();
        fs::remove_file(&path).unwrap();
        assert!(status.success());
    }
}
