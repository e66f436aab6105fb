//! bpf(2) for device programs of a cgroup: load and attach.
//!
//! Kernels 6.17 to 7.1 write past a short attribute, so every call passes a zeroed one of full size.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use anyhow::Result;
use nix::errno::Errno;

use super::{check, check_fd};

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;
const RETRIES: usize = 16;

/// `union bpf_attr` as words: larger than any kernel's own, with a zero tail as the kernel asks.
type Attribute = [u64; 32];

/// Checks and loads a program of encoded instructions.
pub fn load_device_program(program: &[u64]) -> Result<OwnedFd> {
    let license = c"Apache-2.0";
    let mut attribute: Attribute = [0; 32];
    attribute[0] = pair(BPF_PROG_TYPE_CGROUP_DEVICE, program.len() as u32);
    attribute[1] = program.as_ptr() as u64;
    attribute[2] = license.as_ptr() as u64;
    // The kernel gives up its check for a signal or a freeze, even one that nobody handles (kernel/bpf/verifier.c).
    let mut result = bpf(BPF_PROG_LOAD, &mut attribute);
    for _ in 1..RETRIES {
        if result >= 0 || !matches!(Errno::last(), Errno::EAGAIN | Errno::EINTR) {
            break;
        }
        result = bpf(BPF_PROG_LOAD, &mut attribute);
    }
    check_fd(result, || {
        format!("bpf(load device program, {} instructions)", program.len())
    })
}

/// Attaches the program to a cgroup, beside those that its ancestors have.
pub fn attach_device_program(cgroup: impl AsFd, program: impl AsFd) -> Result<()> {
    let (target, program) = (cgroup.as_fd().as_raw_fd(), program.as_fd().as_raw_fd());
    let mut attribute: Attribute = [0; 32];
    attribute[0] = pair(target as u32, program as u32);
    attribute[1] = pair(BPF_CGROUP_DEVICE, BPF_F_ALLOW_MULTI);
    let result = bpf(BPF_PROG_ATTACH, &mut attribute);
    check(result, || {
        format!("bpf(attach device program to cgroup fd {target})")
    })
    .map(drop)
}

/// Two neighbouring u32 fields as the word that holds them, in the order of the machine's bytes.
fn pair(first: u32, second: u32) -> u64 {
    let ([a, b, c, d], [e, f, g, h]) = (first.to_ne_bytes(), second.to_ne_bytes());
    u64::from_ne_bytes([a, b, c, d, e, f, g, h])
}

fn bpf(command: libc::c_int, attribute: &mut Attribute) -> libc::c_long {
    let size = size_of_val(attribute);
    // SAFETY: the attribute outlives the call, its size is given, and the pointers in it are the caller's.
    unsafe { libc::syscall(libc::SYS_bpf, command, attribute.as_mut_ptr(), size) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[repr(C)]
    struct Guarded {
        attribute: Attribute,
        guard: [u64; 16],
    }

    /// Kernels that write past a short attribute do so when asked which programs a cgroup has.
    #[test]
    fn the_kernel_writes_nothing_past_an_attribute() {
        const BPF_PROG_QUERY: libc::c_int = 16;
        const GUARD: u64 = 0x5afe_5afe_5afe_5afe;
        let cgroup = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
            .iter()
            .find_map(|path| std::fs::File::open(path).ok());
        let target = cgroup.as_ref().map_or(-1, AsRawFd::as_raw_fd);
        let mut programs = [0u32; 64];
        // Linux 6.1 knows of 144 bytes (linux/bpf.h, union bpf_attr), and later ones of a few more.
        assert!(size_of::<Attribute>() > 168);
        for command in [BPF_PROG_LOAD, BPF_PROG_ATTACH, BPF_PROG_QUERY] {
            let mut asked = Guarded {
                attribute: [0; 32],
                guard: [GUARD; 16],
            };
            if command == BPF_PROG_QUERY {
                asked.attribute[0] = pair(target as u32, BPF_CGROUP_DEVICE);
                asked.attribute[2] = programs.as_mut_ptr() as u64;
                asked.attribute[3] = programs.len() as u64;
            }
            bpf(command, &mut asked.attribute);
            assert_eq!(std::hint::black_box(&asked).guard, [GUARD; 16]);
        }
    }
}
