//! The machine that runs filters of system calls (networking/filter.rst of the kernel's documentation): what seccomp(2) takes of it.

use cofferdam::sys::seccomp::Instruction;

/// `struct seccomp_data` without the instruction pointer.
#[derive(Clone, Copy, Debug)]
pub struct Data {
    pub number: u32,
    pub audit: u32,
    pub args: [u64; 6],
}

pub fn call(audit: u32, number: u32) -> Data {
    Data {
        number,
        audit,
        args: [0; 6],
    }
}

/// Runs a program as the kernel would; panics on what the kernel does not take.
pub fn run(program: &[Instruction], data: &Data) -> u32 {
    let mut accumulator = 0;
    let mut next = 0;
    loop {
        let Instruction { code, jt, jf, k } = program[next];
        next += 1;
        let holds = match code {
            0x06 => return k,
            0x20 => {
                accumulator = load(data, k);
                continue;
            }
            0x54 => {
                accumulator &= k;
                continue;
            }
            0x05 => {
                next += k as usize;
                continue;
            }
            0x15 => accumulator == k,
            0x25 => accumulator > k,
            0x35 => accumulator >= k,
            _ => panic!("instruction {}: code {code:#x}", next - 1),
        };
        next += usize::from(if holds { jt } else { jf });
    }
}

fn load(data: &Data, offset: u32) -> u32 {
    match offset {
        0 => data.number,
        4 => data.audit,
        16..64 if offset.is_multiple_of(4) => {
            let argument = data.args[(offset as usize - 16) / 8];
            let upper = (offset % 8 == 4) == cfg!(target_endian = "little");
            if upper {
                (argument >> 32) as u32
            } else {
                argument as u32
            }
        }
        _ => panic!("load of offset {offset}"),
    }
}
