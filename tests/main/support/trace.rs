//! The runtime under ptrace(2): which system calls its processes make, and what is left when one of them is killed
//! before its n-th, or that call fails, or all that can be interrupted are. A program that a process becomes is no longer
//! the runtime, and runs on untraced.

use super::call::{Call, Output};
use std::collections::BTreeMap;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// What happens to a process, in the order of their birth, at its n-th system call; both count from 0.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    pub process: usize,
    pub call: usize,
    pub kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// SIGKILL, before the call.
    Kill,
    /// The same for the process of this number, which is none of the runtime's that are traced.
    KillOther(i32),
    /// The call is not made, and says this errno.
    Fail(i32),
    /// The same, where only the calls of this number count.
    FailOf(i64, i32),
    /// It stays where it is, before the call, until the first process has ended.
    Hold,
    /// Of all processes: what a signal may interrupt says EINTR once before it is made.
    Interrupt,
}

impl Fault {
    pub const INTERRUPT: Fault = Fault {
        process: 0,
        call: 0,
        kind: Kind::Interrupt,
    };
}

/// What one process of the runtime did.
#[derive(Default)]
pub struct Traced {
    /// Numbers of the system calls, in their order.
    pub calls: Vec<i64>,
    pub children: usize,
    /// By write(2) and its kin, to whatever.
    pub bytes: u64,
    /// How many calls were interrupted, and whether the last one was.
    pub interrupted: (usize, bool),
}

pub struct Trace {
    pub output: Output,
    /// Page faults of the first process and of those it has waited for, that took no reading of a file.
    pub faults: i64,
    pub processes: Vec<Traced>,
    /// Whether the process came as far as that call.
    pub reached: bool,
}

/// Runs it to its end. Its children that live on are let go.
pub fn trace(call: Call, fault: Option<Fault>) -> Trace {
    run(call, fault, None)
}

/// The same, and looks around before each system call, while the process that makes it is stopped.
pub fn trace_and_look(call: Call, fault: Option<Fault>, look: &mut dyn FnMut()) -> Trace {
    run(call, fault, Some(look))
}

fn run(call: Call, fault: Option<Fault>, look: Option<&mut dyn FnMut()>) -> Trace {
    let running = call.setup(ask_to_be_traced).spawn();
    let main = running.child.id() as i32;
    let mut tracer = Tracer {
        main,
        fault,
        failing: BTreeMap::new(),
        order: vec![],
        known: BTreeMap::new(),
        processes: vec![],
        reached: false,
        held: None,
        look,
    };
    let (status, faults) = tracer.follow();
    tracer.let_go();
    Trace {
        faults,
        output: running.output(status),
        processes: tracer.processes,
        reached: tracer.reached,
    }
}

/// The exec that follows stops the process for its parent (ptrace(2), PTRACE_TRACEME).
fn ask_to_be_traced() -> io::Result<()> {
    // SAFETY: PTRACE_TRACEME has no other arguments.
    match unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

const OPTIONS: i32 = libc::PTRACE_O_TRACESYSGOOD
    | libc::PTRACE_O_TRACEFORK
    | libc::PTRACE_O_TRACEVFORK
    | libc::PTRACE_O_TRACECLONE
    | libc::PTRACE_O_TRACEEXEC
    | libc::PTRACE_O_EXITKILL;

#[derive(Clone, Copy, PartialEq)]
enum Place {
    /// Announced by its parent; its first stop is still to come.
    Unseen,
    Outside,
    InCall,
}

struct Tracer<'a> {
    look: Option<&'a mut dyn FnMut()>,
    main: i32,
    fault: Option<Fault>,
    /// The errno that a process finds when its call returns.
    failing: BTreeMap<i32, i32>,
    /// The processes in the order of their birth.
    order: Vec<i32>,
    /// Those that are traced.
    known: BTreeMap<i32, Place>,
    processes: Vec<Traced>,
    reached: bool,
    /// The process that is stopped by a fault.
    held: Option<i32>,
}

impl Tracer<'_> {
    /// Until the first process has ended.
    fn follow(&mut self) -> (ExitStatus, i64) {
        loop {
            let (pid, status, faults) = wait(-1).expect("the runtime is traced to its end");
            if libc::WIFSTOPPED(status) {
                self.stopped(pid, status);
                continue;
            }
            self.known.remove(&pid);
            if pid == self.main {
                return (ExitStatus::from_raw(status), faults);
            }
        }
    }

    fn stopped(&mut self, pid: i32, status: i32) {
        let (signal, event) = (libc::WSTOPSIG(status), status >> 16);
        let place = self.known.get(&pid).copied().unwrap_or(Place::Unseen);
        if place == Place::Unseen {
            // The stop of one that is new: main after its exec, a child at its birth.
            self.expect(pid);
            self.known.insert(pid, Place::Outside);
            request(libc::PTRACE_SETOPTIONS, pid, OPTIONS);
            self.go_on(pid, 0);
        } else if signal == libc::SIGTRAP | 0x80 {
            self.at_call(pid, place);
        } else if event == libc::PTRACE_EVENT_EXEC {
            self.became_another(pid);
        } else if event != 0 {
            self.of(pid).children += 1;
            self.expect(child_of(pid));
            self.go_on(pid, 0);
        } else {
            self.go_on(pid, signal);
        }
    }

    /// Its parent's stop and its own first come in any order.
    fn expect(&mut self, pid: i32) {
        if !self.order.contains(&pid) {
            self.order.push(pid);
            self.processes.push(Traced::default());
            self.known.insert(pid, Place::Unseen);
        }
    }

    fn at_call(&mut self, pid: i32, place: Place) {
        if place == Place::InCall {
            self.known.insert(pid, Place::Outside);
            if let Some(errno) = self.failing.remove(&pid) {
                set_register(pid, RESULT, -i64::from(errno));
            }
            let written = self.of(pid).calls.last().copied();
            if written.is_some_and(|number| WRITES.contains(&number)) {
                self.of(pid).bytes += register(pid, RESULT).max(0) as u64;
            }
            return self.go_on(pid, 0);
        }
        self.known.insert(pid, Place::InCall);
        if let Some(look) = &mut self.look {
            look();
        }
        let (count, number) = (self.of(pid).calls.len(), register(pid, NUMBER));
        self.of(pid).calls.push(number);
        match self.due(pid, count, number) {
            None => self.go_on(pid, 0),
            Some(Kind::Kill) => {
                self.reached = true;
                kill(pid);
            }
            Some(Kind::Hold) => {
                self.reached = true;
                self.held = Some(pid);
            }
            Some(Kind::KillOther(other)) => {
                self.reached = true;
                kill(other);
                self.go_on(pid, 0);
            }
            Some(Kind::Fail(errno) | Kind::FailOf(_, errno)) => {
                self.reached = true;
                self.fail(pid, number, errno);
            }
            Some(Kind::Interrupt) => self.fail(pid, number, libc::EINTR),
        }
    }

    fn fail(&mut self, pid: i32, number: i64, errno: i32) {
        if number != libc::SYS_exit_group {
            self.failing.insert(pid, errno);
            set_register(pid, NUMBER, -1);
        }
        request(libc::PTRACE_SYSCALL, pid, 0);
    }

    fn due(&mut self, pid: i32, count: usize, number: i64) -> Option<Kind> {
        let fault = self.fault.filter(|_| !self.reached)?;
        if fault.kind == Kind::Interrupt {
            return self.interrupts(pid, number).then_some(fault.kind);
        }
        let count = match fault.kind {
            Kind::FailOf(counted, _) if counted != number => return None,
            Kind::FailOf(..) => {
                let before = &self.of(pid).calls[..count];
                before.iter().filter(|call| **call == number).count()
            }
            _ => count,
        };
        let is_due = self.order.get(fault.process) == Some(&pid) && fault.call == count;
        is_due.then_some(fault.kind)
    }

    fn interrupts(&mut self, pid: i32, number: i64) -> bool {
        let (count, last) = self.of(pid).interrupted;
        let now = !last && INTERRUPTIBLE.contains(&number);
        self.of(pid).interrupted = (count + usize::from(now), now);
        now
    }

    fn became_another(&mut self, pid: i32) {
        if pid == self.main {
            return self.go_on(pid, 0);
        }
        self.known.remove(&pid);
        request(libc::PTRACE_DETACH, pid, 0);
    }

    fn of(&mut self, pid: i32) -> &mut Traced {
        let index = self.order.iter().position(|known| *known == pid);
        &mut self.processes[index.expect("a known process")]
    }

    /// After the fault nothing is counted any more.
    fn go_on(&self, pid: i32, signal: i32) {
        let how = match self.reached && self.look.is_none() {
            true => libc::PTRACE_CONT,
            false => libc::PTRACE_SYSCALL,
        };
        request(how, pid, signal);
    }

    /// ptrace(2): only what is stopped can be detached.
    fn let_go(&mut self) {
        let mut left: Vec<(i32, Place)> = std::mem::take(&mut self.known).into_iter().collect();
        while let Some((pid, place)) = left.pop().or_else(tracee) {
            if self.held == Some(pid) {
                request(libc::PTRACE_DETACH, pid, 0);
                continue;
            }
            // The first stop comes by itself.
            if place != Place::Unseen {
                // SAFETY: tgkill touches no memory.
                unsafe { libc::syscall(libc::SYS_tgkill, pid, pid, libc::SIGSTOP) };
            }
            let born = let_one_go(pid).into_iter();
            left.extend(born.map(|child| (child, Place::Unseen)));
        }
    }
}

/// Returns a process that this thread still traces, or None. A parent that is killed in clone(2) never announces its child.
fn tracee() -> Option<(i32, Place)> {
    // SAFETY: gettid has no arguments.
    let tracer = format!("TracerPid:\t{}\n", unsafe { libc::gettid() });
    let processes = std::fs::read_dir("/proc").expect("read /proc").flatten();
    let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_traced = |pid: &i32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
        status.is_ok_and(|text| text.contains(&tracer))
    };
    Some((pids.find(is_traced)?, Place::Unseen))
}

/// Gives the children that it has had meanwhile: they are traced, and would wait for this thread to end.
fn let_one_go(pid: i32) -> Vec<i32> {
    let mut born = Vec::new();
    while let Some((_, status, _)) = wait(pid) {
        if !libc::WIFSTOPPED(status) {
            break;
        }
        let (signal, event) = (libc::WSTOPSIG(status), status >> 16);
        if signal == libc::SIGSTOP {
            request(libc::PTRACE_DETACH, pid, 0);
            break;
        }
        if event != 0 && event != libc::PTRACE_EVENT_EXEC {
            born.push(child_of(pid));
        }
        let is_signal = signal & 0x80 == 0 && event == 0;
        request(libc::PTRACE_CONT, pid, if is_signal { signal } else { 0 });
    }
    born
}

fn kill(pid: i32) {
    // SAFETY: kill touches no memory.
    unsafe { libc::kill(pid, libc::SIGKILL) };
}

/// Of those that this thread traces or has started; tests in other threads wait for theirs.
fn wait(pid: i32) -> Option<(i32, i32, i64)> {
    let (mut status, flags) = (0, libc::__WALL | libc::__WNOTHREAD);
    // SAFETY: integers, for which zero is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: status and usage outlive the call.
    let found = unsafe { libc::wait4(pid, &mut status, flags, &mut usage) };
    (found > 0).then_some((found, status, usage.ru_minflt))
}

/// C libraries differ in the type.
#[cfg(target_env = "musl")]
type Request = libc::c_int;
#[cfg(not(target_env = "musl"))]
type Request = libc::c_uint;

/// One that has been killed meanwhile does not answer, which its end will tell.
fn request(what: Request, pid: i32, data: i32) {
    // SAFETY: none of these requests reads or writes memory of this process.
    unsafe { libc::ptrace(what, pid, 0, libc::c_long::from(data)) };
}

fn child_of(pid: i32) -> i32 {
    let mut child: libc::c_ulong = 0;
    // SAFETY: PTRACE_GETEVENTMSG writes one word, which outlives the call.
    unsafe { libc::ptrace(libc::PTRACE_GETEVENTMSG, pid, 0, &mut child) };
    child as i32
}

const WRITES: [i64; 4] = [
    libc::SYS_write,
    libc::SYS_pwrite64,
    libc::SYS_writev,
    libc::SYS_pwritev,
];

/// signal(7); but close(2), which closes in spite of it, and calls of which the kernel makes sure itself.
const INTERRUPTIBLE: [i64; 23] = [
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_open,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_wait4,
    libc::SYS_waitid,
    libc::SYS_connect,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_sendmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_getrandom,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
];

const NUMBER: usize = std::mem::offset_of!(libc::user_regs_struct, orig_rax);
const RESULT: usize = std::mem::offset_of!(libc::user_regs_struct, rax);

/// ptrace(2), PTRACE_PEEKUSER: the word at an offset of `struct user`, which begins with the registers.
fn register(pid: i32, offset: usize) -> i64 {
    // SAFETY: no memory of this process is read or written.
    unsafe { libc::ptrace(libc::PTRACE_PEEKUSER, pid, offset, 0) }
}

/// At the entry of a call, number -1 skips it; at its return, what it is to have given.
fn set_register(pid: i32, offset: usize, value: i64) {
    // SAFETY: PTRACE_POKEUSER takes the word itself; no memory of this process is read or written.
    unsafe { libc::ptrace(libc::PTRACE_POKEUSER, pid, offset, value) };
}
