//! Architectures and the numbers of their system calls, from libseccomp's tables.
//!
//! Run by the parent. Resolves names only; which call gets which verdict is `table`'s part.

use anyhow::{Context, Result, ensure};
use libseccomp::{ScmpArch, ScmpSyscall};
use oci_spec::runtime::{Arch, LinuxSeccomp};

/// Architectures of the spec; SCMP_ARCH_NATIVE stands for one of them.
pub const ARCHITECTURES: &[(Arch, &str)] = &[
    (Arch::ScmpArchAarch64, "SCMP_ARCH_AARCH64"),
    (Arch::ScmpArchArm, "SCMP_ARCH_ARM"),
    (Arch::ScmpArchLoongarch64, "SCMP_ARCH_LOONGARCH64"),
    (Arch::ScmpArchM68k, "SCMP_ARCH_M68K"),
    (Arch::ScmpArchMips, "SCMP_ARCH_MIPS"),
    (Arch::ScmpArchMips64, "SCMP_ARCH_MIPS64"),
    (Arch::ScmpArchMips64n32, "SCMP_ARCH_MIPS64N32"),
    (Arch::ScmpArchMipsel, "SCMP_ARCH_MIPSEL"),
    (Arch::ScmpArchMipsel64, "SCMP_ARCH_MIPSEL64"),
    (Arch::ScmpArchMipsel64n32, "SCMP_ARCH_MIPSEL64N32"),
    (Arch::ScmpArchParisc, "SCMP_ARCH_PARISC"),
    (Arch::ScmpArchParisc64, "SCMP_ARCH_PARISC64"),
    (Arch::ScmpArchPpc, "SCMP_ARCH_PPC"),
    (Arch::ScmpArchPpc64, "SCMP_ARCH_PPC64"),
    (Arch::ScmpArchPpc64le, "SCMP_ARCH_PPC64LE"),
    (Arch::ScmpArchRiscv64, "SCMP_ARCH_RISCV64"),
    (Arch::ScmpArchS390, "SCMP_ARCH_S390"),
    (Arch::ScmpArchS390x, "SCMP_ARCH_S390X"),
    (Arch::ScmpArchSh, "SCMP_ARCH_SH"),
    (Arch::ScmpArchSheb, "SCMP_ARCH_SHEB"),
    (Arch::ScmpArchX32, "SCMP_ARCH_X32"),
    (Arch::ScmpArchX86, "SCMP_ARCH_X86"),
    (Arch::ScmpArchX86_64, "SCMP_ARCH_X86_64"),
];

/// An architecture of the filter.
pub struct Architecture {
    pub name: &'static str,
    pub arch: Arch,
    library: ScmpArch,
}

/// The native one first: nearly all calls come from it.
pub fn architectures(seccomp: &LinuxSeccomp) -> Result<Vec<Architecture>> {
    let mut found = vec![native()?];
    for (index, arch) in seccomp.architectures().iter().flatten().enumerate() {
        if *arch == Arch::ScmpArchNative || found.iter().any(|known| known.arch == *arch) {
            continue;
        }
        let field = format!("linux.seccomp.architectures[{index}]");
        found.push(architecture(*arch).with_context(|| field)?);
    }
    Ok(found)
}

/// Those for which this build's libseccomp has a table, by the names of the spec.
pub fn supported() -> impl Iterator<Item = &'static str> {
    let names = ARCHITECTURES.iter().map(|(_, name)| *name);
    names.filter(|name| name.parse().is_ok_and(has_table))
}

/// A name that every architecture has tells.
fn has_table(library: ScmpArch) -> bool {
    ScmpSyscall::from_name_by_arch("exit", library).is_ok()
}

fn native() -> Result<Architecture> {
    let native = ScmpArch::native();
    let (arch, _) = ARCHITECTURES
        .iter()
        .find(|(_, name)| name.parse().is_ok_and(|arch: ScmpArch| arch == native))
        .with_context(|| {
            format!("linux.seccomp: {native:?}: this architecture has no name in the spec")
        })?;
    architecture(*arch)
}

fn architecture(arch: Arch) -> Result<Architecture> {
    let (_, name) = ARCHITECTURES
        .iter()
        .find(|(known, _)| *known == arch)
        .with_context(|| format!("{arch}: unknown architecture"))?;
    let library = name
        .parse()
        .with_context(|| format!("{name}: unknown to libseccomp"))?;
    ensure!(
        has_table(library),
        "{name}: this build's libseccomp has no syscall table for it"
    );
    Ok(Architecture {
        name,
        arch,
        library,
    })
}

/// The numbers of one name on one architecture.
#[derive(Default)]
pub struct Numbers {
    pub direct: Option<u32>,
    /// The number of socketcall(2) or ipc(2), and which of its calls this is.
    pub multiplexed: Option<(u32, u32)>,
}

impl Numbers {
    pub fn newest(&self) -> Option<u32> {
        self.direct.max(self.multiplexed.map(|(number, _)| number))
    }
}

/// None at all for a name that libseccomp does not know, or that this architecture lacks.
pub fn numbers(name: &str, architecture: &Architecture) -> Numbers {
    let library = architecture.library;
    let Ok(resolved) = ScmpSyscall::from_name_by_arch(name, library).map(i32::from) else {
        return Numbers::default();
    };
    // libseccomp's own numbers, below zero, stand for calls that are multiplexed or missing.
    let (socketcall, call) = match resolved {
        0.. => {
            let direct = Some(resolved.unsigned_abs());
            return Numbers {
                direct,
                ..Numbers::default()
            };
        }
        -120..=-101 => (true, resolved.unsigned_abs() - 100),
        -224..=-201 => (false, resolved.unsigned_abs() - 200),
        _ => return Numbers::default(),
    };
    match ScmpSyscall::from_name_by_arch_rewrite(name, library).map(i32::from) {
        Ok(multiplexer @ 0..) => Numbers {
            direct: direct_number(socketcall, call, architecture.arch),
            multiplexed: Some((multiplexer.unsigned_abs(), call)),
        },
        _ => Numbers::default(),
    }
}

/// Calls that were multiplexed first got numbers of their own later (Linux 4.3 for sockets on x86,
/// 5.1 for IPC). libseccomp tells these only the other way round, number to name, and slowly.
fn direct_number(socketcall: bool, call: u32, arch: Arch) -> Option<u32> {
    // In the order of the calls in linux/net.h, from SYS_SOCKET (1) to SYS_SENDMMSG (20).
    const X86: [u32; 20] = [
        359, 361, 362, 363, 0, 367, 368, 360, 0, 0, 369, 371, 373, 366, 365, 370, 372, 364, 337,
        345,
    ];
    const S390: [u32; 20] = [
        359, 361, 362, 363, 0, 367, 368, 360, 0, 0, 369, 371, 373, 366, 365, 370, 372, 364, 357,
        358,
    ];
    const PPC: [u32; 20] = [
        326, 327, 328, 329, 330, 331, 332, 333, 334, 336, 335, 337, 338, 339, 340, 341, 342, 344,
        343, 349,
    ];
    const MIPS: [u32; 20] = [
        4183, 4169, 4170, 4174, 4168, 4172, 4171, 4184, 4178, 4175, 4180, 4176, 4182, 4181, 4173,
        4179, 4177, 4334, 4335, 4343,
    ];
    if !socketcall {
        return direct_ipc(call, arch);
    }
    let sockets = match arch {
        Arch::ScmpArchX86 => X86,
        Arch::ScmpArchS390 | Arch::ScmpArchS390x => S390,
        Arch::ScmpArchPpc | Arch::ScmpArchPpc64 | Arch::ScmpArchPpc64le => PPC,
        Arch::ScmpArchMips | Arch::ScmpArchMipsel => MIPS,
        _ => return None,
    };
    let number = sockets[call as usize - 1];
    (number != 0).then_some(number)
}

/// By the numbers in linux/ipc.h.
fn direct_ipc(call: u32, arch: Arch) -> Option<u32> {
    let base = match arch {
        Arch::ScmpArchMips | Arch::ScmpArchMipsel => 4000,
        _ => 0,
    };
    let number = match call {
        2 => 393,
        3 => 394,
        4 if is_wide(arch) => 392,
        11 => 400,
        12 => 401,
        13 => 399,
        14 => 402,
        21 => 397,
        22 => 398,
        23 => 395,
        24 => 396,
        _ => return None,
    };
    Some(base + number)
}

/// Whether registers have 64 bits: the kernel's convention for AUDIT_ARCH_ values, where mips64n32
/// has the mark of the 64-bit kernel and one for its 32-bit registers.
pub fn is_wide(arch: Arch) -> bool {
    const MARK_64BIT: u32 = 0x8000_0000;
    const MARK_N32: u32 = 0x2000_0000;
    arch as u32 & (MARK_64BIT | MARK_N32) == MARK_64BIT
}
