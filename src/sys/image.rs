//! This process's own program in memory, and the file that the kernel shows as /proc/PID/exe.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::ptr::{self, NonNull};

use anyhow::{Context, Result, ensure};
use libc::{c_int, c_long, c_ulong, c_void};

use super::check;

const PAGE: usize = 4096;
/// include/uapi/linux/prctl.h; Linux 3.18.
const PR_SET_MM: c_int = 35;
const PR_SET_MM_MAP: c_ulong = 14;

/// `struct prctl_mm_map` of include/uapi/linux/prctl.h.
#[repr(C)]
struct Map {
    start_code: u64,
    end_code: u64,
    start_data: u64,
    end_data: u64,
    start_brk: u64,
    brk: u64,
    start_stack: u64,
    arg_start: u64,
    arg_end: u64,
    env_start: u64,
    env_end: u64,
    auxv: *const u64,
    auxv_size: u32,
    exe_fd: u32,
}

/// Goes on with the same program from another file with the same bytes, as if that had been executed. Needs
/// CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN, and CONFIG_CHECKPOINT_RESTORE; on failure nothing has changed that matters.
pub fn go_on_from(file: &File) -> Result<()> {
    let segments = segments()?;
    for segment in segments
        .iter()
        .filter(|segment| segment.p_type == libc::PT_LOAD)
    {
        replace(segment, file)?;
    }
    for segment in segments
        .iter()
        .filter(|segment| segment.p_type == libc::PT_GNU_RELRO)
    {
        make_read_only(segment)?;
    }
    // kernel/sys.c, replace_mm_exe_file: EBUSY for as long as anything of the old file is mapped.
    set_exe(file, segments)
}

/// elf(5): the headers are in memory, and the kernel says where.
fn segments() -> Result<&'static [libc::Elf64_Phdr]> {
    // SAFETY: getauxval(3) only reads what execve(2) has put on the stack.
    let told = |key| unsafe { libc::getauxval(key) };
    let (headers, count) = (told(libc::AT_PHDR), told(libc::AT_PHNUM));
    ensure!(
        told(libc::AT_PAGESZ) as usize == PAGE,
        "pages are not of {PAGE} bytes"
    );
    let headers = NonNull::new(headers as *mut libc::Elf64_Phdr).context("no AT_PHDR")?;
    // SAFETY: so many headers are there, in a segment that stays mapped with these bytes.
    let headers = unsafe { std::slice::from_raw_parts(headers.as_ptr(), count as usize) };
    let own = headers
        .iter()
        .find(|header| header.p_type == libc::PT_LOAD && header.p_offset == 0);
    let base = own.context("the program's headers are not loaded")?.p_vaddr;
    // Linked to a fixed address, as this program is, it is where its headers say.
    ensure!(
        base + 64 == headers.as_ptr() as u64,
        "the program was relocated"
    );
    Ok(headers)
}

fn replace(segment: &libc::Elf64_Phdr, file: &File) -> Result<()> {
    let start = segment.p_vaddr as usize / PAGE * PAGE;
    let length = (segment.p_vaddr + segment.p_filesz) as usize - start;
    if segment.p_flags & libc::PF_W != 0 {
        return own(start, length.next_multiple_of(PAGE));
    }
    let execute = if segment.p_flags & libc::PF_X != 0 {
        libc::PROT_EXEC
    } else {
        0
    };
    let offset = segment.p_offset as usize / PAGE * PAGE;
    // SAFETY: the same bytes of the same file come to the same place, where nothing is ever written.
    let mapped = unsafe {
        libc::mmap(
            start as *mut c_void,
            length,
            libc::PROT_READ | execute,
            libc::MAP_PRIVATE | libc::MAP_FIXED,
            file.as_raw_fd(),
            offset as libc::off_t,
        )
    };
    check(mapped as c_long, || "mmap(the program)".to_string()).map(drop)
}

/// What may have been written becomes memory of no file.
fn own(start: usize, length: usize) -> Result<()> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: new memory, that nothing else knows of.
    let copy = unsafe { libc::mmap(ptr::null_mut(), length, protection, flags, -1, 0) };
    check(copy as c_long, || "mmap(a copy of the data)".to_string())?;
    let there = start as *mut c_void;
    // SAFETY: there is one thread, and between the copy and the move it writes to nothing but its stack.
    let moved = unsafe {
        ptr::copy_nonoverlapping(there.cast::<u8>(), copy.cast(), length);
        libc::mremap(
            copy,
            length,
            length,
            libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED,
            there,
        )
    };
    check(moved as c_long, || "mremap(a copy of the data)".to_string()).map(drop)
}

/// What is written by nobody once the program runs (ld(1), -z relro); not all C libraries see to it themselves.
fn make_read_only(segment: &libc::Elf64_Phdr) -> Result<()> {
    let start = segment.p_vaddr as usize / PAGE * PAGE;
    let end = (segment.p_vaddr + segment.p_memsz) as usize / PAGE * PAGE;
    // SAFETY: whole pages of this program's own data, which nothing writes to.
    let set = unsafe { libc::mprotect(start as *mut c_void, end - start, libc::PROT_READ) };
    check(set.into(), || "mprotect(the program)".to_string()).map(drop)
}

/// The other values, which ps(1) reads, are told as they are: there is no call for the file alone without CAP_SYS_RESOURCE.
fn set_exe(file: &File, segments: &[libc::Elf64_Phdr]) -> Result<()> {
    let (words, environment) = super::entry::strings();
    let of = |flag| {
        let found = segments
            .iter()
            .find(|segment| segment.p_type == libc::PT_LOAD && segment.p_flags & flag != 0);
        found.map_or((0, 0), |found| {
            (found.p_vaddr, found.p_vaddr + found.p_filesz)
        })
    };
    let (code, data) = (of(libc::PF_X), of(libc::PF_W));
    // SAFETY: with 0 it only tells where the heap ends; this program has none there.
    let brk = unsafe { libc::sbrk(0) } as u64;
    let map = Map {
        start_code: code.0,
        end_code: code.1,
        start_data: data.0,
        end_data: data.1,
        start_brk: brk,
        brk,
        start_stack: words.start as u64,
        arg_start: words.start as u64,
        arg_end: words.end as u64,
        env_start: environment.start as u64,
        env_end: environment.end as u64,
        auxv: ptr::null(),
        auxv_size: 0,
        exe_fd: file.as_raw_fd() as u32,
    };
    // SAFETY: the kernel reads the structure of the size that is given.
    let set = unsafe { libc::prctl(PR_SET_MM, PR_SET_MM_MAP, &map, size_of::<Map>(), 0) };
    check(set.into(), || "prctl(PR_SET_MM_MAP)".to_string()).map(drop)
}
