//! The static program that the tests run inside containers and as hooks: it answers questions.
//! The arguments are commands separated by `;`. Each prints one line: `COMMAND ARGS => ANSWER`,
//! where the answer is a value, `ok`, or the name of the errno. Built by the harness with plain
//! rustc, so it knows nothing but std and the C library; it must run as PID 1 in an empty rootfs.

#![no_main]

mod forge;
mod prowl;
mod report;
mod watch;

use std::ffi::{CString, c_char, c_int, c_long, c_ulong, c_void};
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};

unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
    fn mount(
        s: *const c_char,
        t: *const c_char,
        f: *const c_char,
        o: c_ulong,
        d: *const c_void,
    ) -> c_int;
    fn umount2(target: *const c_char, flags: c_int) -> c_int;
    fn mknod(path: *const c_char, mode: u32, dev: u64) -> c_int;
    fn kill(pid: c_int, signal: c_int) -> c_int;
    fn fchmod(fd: c_int, mode: u32) -> c_int;
    fn fchown(fd: c_int, uid: u32, gid: u32) -> c_int;
    fn futimens(fd: c_int, times: *const i64) -> c_int;
    fn chmod(path: *const c_char, mode: u32) -> c_int;
    fn chown(path: *const c_char, uid: u32, gid: u32) -> c_int;
    fn ioctl(fd: c_int, request: c_ulong, ...) -> c_int;
    fn fork() -> c_int;
    fn getpid() -> c_int;
    fn setsid() -> c_int;
    fn isatty(fd: c_int) -> c_int;
    fn sigfillset(set: *mut [u64; 16]) -> c_int;
    fn sigprocmask(how: c_int, set: *const [u64; 16], old: *mut [u64; 16]) -> c_int;
    fn sigwait(set: *const [u64; 16], signal: *mut c_int) -> c_int;
    fn clock_gettime(clock: c_int, time: *mut [i64; 2]) -> c_int;
}

/// Not Rust's own main: that would ignore SIGPIPE, catch SIGSEGV and open missing stdio.
#[unsafe(no_mangle)]
pub extern "C" fn main(_count: c_int, _args: *const *const c_char) -> c_int {
    let args: Vec<String> = std::env::args_os()
        .skip(1)
        .map(|a| a.to_string_lossy().into_owned())
        .collect();
    for command in args.split(|a| a == ";").filter(|c| !c.is_empty()) {
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        let answer = answer(words[0], &words[1..]);
        let mut out = io::stdout().lock();
        let _ = writeln!(out, "{} => {answer}", words.join(" "));
        let _ = out.flush();
    }
    0
}

fn answer(command: &str, args: &[&str]) -> String {
    let arg = |i: usize| args.get(i).copied().unwrap_or("");
    match command {
        "report" => report::report(),
        "report-to" => done(append(arg(0), &(report::report() + "\n"))),
        "daemon" => daemon(),
        "prowl" => prowl::prowl(arg(0)),
        "hunt" => prowl::hunt(),
        "forge" => forge::forge(),
        "watch" => watch::watch(),
        "stop-others" => stop_others(),
        "inode" => fs::metadata(arg(0)).map_or_else(|e| name(&e), |m| format!("{}:{}", m.dev(), m.ino())),
        "read-some" => read_some(arg(0)),
        "read" => fs::read(arg(0)).map_or_else(|e| name(&e), |b| text(&b)),
        "write" => done(
            fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .open(arg(0))
                .and_then(|mut f| f.write_all(arg(1).as_bytes())),
        ),
        "append" => done(append(arg(0), &format!("{}\n", arg(1)))),
        "open" => open(arg(0), arg(1)),
        "stat" => fs::metadata(arg(0)).map_or_else(|e| name(&e), |m| describe(&m)),
        "lstat" => lstat(arg(0)),
        "ls" => ls(arg(0)),
        "mkdir" => done(fs::create_dir(arg(0))),
        "rm" => done(fs::remove_file(arg(0))),
        "chown" => checked(unsafe {
            chown(
                c(arg(0)).as_ptr(),
                number(arg(1)) as u32,
                number(arg(1)) as u32,
            )
        }),
        "fchmod" => checked(unsafe { fchmod(number(arg(0)) as c_int, number(arg(1)) as u32) }),
        "fchown" => {
            let owner = number(arg(1)) as u32;
            checked(unsafe { fchown(number(arg(0)) as c_int, owner, owner) })
        }
        // In the year 1970.
        "futimens" => checked(unsafe { futimens(number(arg(0)) as c_int, [1, 0, 1, 0].as_ptr()) }),
        "remount-rw" => remount(arg(0)),
        "chmod" => checked(unsafe { chmod(c(arg(0)).as_ptr(), number(arg(1)) as u32) }),
        "link" => done(std::os::unix::fs::symlink(arg(0), arg(1))),
        "mknod" => make_node(args),
        "exec" => exec(args),
        "mount" => checked(unsafe {
            let (kind, target) = (c(arg(0)), c(arg(1)));
            mount(
                kind.as_ptr(),
                target.as_ptr(),
                kind.as_ptr(),
                number(arg(2)) as c_ulong,
                std::ptr::null(),
            )
        }),
        "umount" => checked(unsafe { umount2(c(arg(0)).as_ptr(), 2) }),
        "mountinfo" => mountinfo(arg(0)),
        "mounts" => mounts(),
        "syscall" => call(args),
        "ioctl" => ioctl_byte(args),
        "caps" => report::status_line(&format!("Cap{}:", arg(0))),
        "status" => report::status_line(&format!("{}:", arg(0))),
        "ns" => fs::read_link(format!("/proc/self/ns/{}", arg(0)))
            .map_or_else(|e| name(&e), |p| p.display().to_string()),
        "env" => std::env::var(arg(0)).unwrap_or_else(|_| "unset".into()),
        "clock" => clock(arg(0)),
        "keyring" => keyring(),
        "mempolicy" => memory_policy(),
        "tty" => tty(),
        "stdin" => {
            let mut all = Vec::new();
            done(io::stdin().read_to_end(&mut all).map(drop)) + ":" + &text(&all)
        }
        "line" => {
            let mut line = String::new();
            done(io::stdin().read_line(&mut line).map(drop)) + ":" + line.trim_end()
        }
        "stderr" => {
            eprintln!("{}", arg(0));
            "ok".into()
        }
        "hook" => done(hook(arg(0), arg(1))),
        "signals" => signals(),
        "winch" => winch(arg(0)),
        "children" => children(number(arg(0))),
        // One message to the service manager, lines separated by commas (sd_notify(3)).
        "notify" => done(notify(&args.join(" ").replace(',', "\n"))),
        "pause" => forever(),
        "end-first-thread" => {
            std::thread::spawn(|| {
                println!("ready");
                forever()
            });
            // exit(2) ends this thread alone.
            unsafe { syscall(60, 0) };
            "unreachable".into()
        }
        "spin" => loop {
            std::hint::spin_loop();
        },
        "pause-unless" => {
            if fs::metadata(arg(0)).is_ok() {
                "ok".into()
            } else {
                forever()
            }
        }
        "crash" => {
            unsafe { *std::hint::black_box(std::ptr::null_mut::<u8>().wrapping_add(8)) = 1 };
            "alive".into()
        }
        "exit" => std::process::exit(number(arg(0)) as i32),
        "fail-loudly" => {
            println!("to-stdout");
            eprintln!("to-stderr");
            std::process::exit(7)
        }
        other => {
            eprintln!("payload: unknown command {other}");
            std::process::exit(99)
        }
    }
}

/// Stops each process that it sees, until there is a file /stop. The answer: how many.
fn stop_others() -> String {
    println!("stopping");
    let mut stopped = std::collections::BTreeSet::new();
    while fs::metadata("/stop").is_err() {
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let pid = entry.file_name().to_string_lossy().parse::<c_int>();
            if let Ok(pid @ 2..) = pid
                && unsafe { kill(pid, 19) } == 0
            {
                stopped.insert(pid);
            }
        }
    }
    stopped.len().to_string()
}

/// Two bytes, in hexadecimal.
fn read_some(path: &str) -> String {
    let mut bytes = [1u8; 2];
    let read = fs::File::open(path).and_then(|mut file| file.read_exact(&mut bytes));
    read.map_or_else(|e| name(&e), |()| format!("{:02x}{:02x}", bytes[0], bytes[1]))
}

/// Takes the read-only flag off a mount.
fn remount(path: &str) -> String {
    let (none, target) = (std::ptr::null(), c(path));
    const MS_REMOUNT_BIND: c_ulong = 0x1020;
    checked(unsafe { mount(none, target.as_ptr(), none, MS_REMOUNT_BIND, none.cast()) })
}

fn append(path: &str, line: &str) -> io::Result<()> {
    fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)?
        .write_all(line.as_bytes())
}

/// A hook: one JSON line with what it was given, appended to a file of the test.
fn hook(file: &str, tag: &str) -> io::Result<()> {
    let mut stdin = String::new();
    io::stdin().read_to_string(&mut stdin)?;
    let mut env: Vec<String> = std::env::vars()
        .map(|(k, v)| quote(&format!("{k}={v}")))
        .collect();
    env.sort();
    let cwd = std::env::current_dir().map_or_else(|e| name(&e), |p| p.display().to_string());
    let line = format!(
        "{{\"tag\":{},\"state\":{},\"env\":[{}],\"cwd\":{},\"pid\":{},\"argv0\":{},\"ns\":{}}}\n",
        quote(tag),
        if stdin.is_empty() {
            "null"
        } else {
            stdin.trim_end()
        },
        env.join(","),
        quote(&cwd),
        unsafe { getpid() },
        quote(&std::env::args().next().unwrap_or_default()),
        report::namespaces(),
    );
    append(file, &line)
}

fn open(path: &str, mode: &str) -> String {
    let mut options = fs::OpenOptions::new();
    options
        .read(mode.contains('r'))
        .write(mode.contains('w'))
        .custom_flags(0o4000 | 0o400);
    done(options.open(path).map(drop))
}

fn describe(m: &fs::Metadata) -> String {
    let t = m.file_type();
    let rdev = m.rdev();
    let (major, minor) = (
        (rdev >> 8) & 0xfff,
        (rdev & 0xff) | ((rdev >> 12) & 0xfff00),
    );
    let kind = if t.is_char_device() {
        format!("char {major}:{minor}")
    } else if t.is_block_device() {
        format!("block {major}:{minor}")
    } else if t.is_fifo() {
        "fifo".into()
    } else if t.is_socket() {
        "socket".into()
    } else if t.is_dir() {
        "dir".into()
    } else if t.is_symlink() {
        "link".into()
    } else {
        "file".into()
    };
    format!("{kind} {:04o} {}:{}", m.mode() & 0o7777, m.uid(), m.gid())
}

fn lstat(path: &str) -> String {
    match fs::read_link(path) {
        Ok(target) => format!("link -> {}", target.display()),
        Err(_) => fs::symlink_metadata(path).map_or_else(|e| name(&e), |m| describe(&m)),
    }
}

fn ls(path: &str) -> String {
    let entries = match fs::read_dir(path) {
        Ok(e) => e,
        Err(e) => return name(&e),
    };
    let mut names: Vec<String> = entries
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names.join(",")
}

fn make_node(args: &[&str]) -> String {
    let mode = match args[1] {
        "c" => 0o020000,
        "b" => 0o060000,
        _ => 0o010000,
    };
    let (major, minor) = (
        number(args.get(2).unwrap_or(&"0")) as u64,
        number(args.get(3).unwrap_or(&"0")) as u64,
    );
    let dev = (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12);
    checked(unsafe { mknod(c(args[0]).as_ptr(), mode | 0o666, dev) })
}

fn exec(args: &[&str]) -> String {
    match std::process::Command::new(args[0])
        .args(&args[1..])
        .output()
    {
        Ok(out) => format!("{}:{}", out.status.code().unwrap_or(-1), text(&out.stdout)),
        Err(e) => name(&e),
    }
}

/// The topmost mount at this mount point: everything of its line after the mount ids.
fn mountinfo(path: &str) -> String {
    let all = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let line = all.lines().rfind(|l| l.split(' ').nth(4) == Some(path));
    line.map_or("none".into(), |l| {
        l.splitn(4, ' ').nth(3).unwrap_or("").to_string()
    })
}

/// All mount points in order.
fn mounts() -> String {
    let all = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    all.lines()
        .filter_map(|l| l.split(' ').nth(4))
        .collect::<Vec<_>>()
        .join(",")
}

/// `syscall NUMBER [ARG ..]`: numbers, `s:TEXT` for a string, `z` for a zeroed buffer.
fn call(args: &[&str]) -> String {
    let mut buffer = vec![0u8; 4096];
    let strings: Vec<CString> = args
        .iter()
        .map(|a| c(a.strip_prefix("s:").unwrap_or("")))
        .collect();
    let value = |i: usize| match args.get(i) {
        Some(a) if a.starts_with("s:") => strings[i].as_ptr() as i64,
        Some(&"z") => buffer.as_ptr() as i64,
        Some(a) => number(a),
        None => 0,
    };
    let result = unsafe {
        syscall(
            value(0),
            value(1),
            value(2),
            value(3),
            value(4),
            value(5),
            value(6),
        )
    };
    buffer[0] = 0;
    if result < 0 {
        last()
    } else {
        result.to_string()
    }
}

/// `ioctl FD REQUEST`: with a pointer to a zeroed buffer that starts with `x`.
fn ioctl_byte(args: &[&str]) -> String {
    let mut buffer = [0u8; 256];
    buffer[0] = b'x';
    checked(unsafe {
        ioctl(
            number(args[0]) as c_int,
            number(args[1]) as c_ulong,
            buffer.as_mut_ptr(),
        )
    })
}

fn clock(which: &str) -> String {
    let mut time = [0i64; 2];
    let id = match which {
        "boottime" => 7,
        "monotonic" => 1,
        _ => 0,
    };
    unsafe { clock_gettime(id, &mut time) };
    time[0].to_string()
}

fn keyring() -> String {
    let mut buffer = [0u8; 256];
    let length = unsafe {
        syscall(
            250,
            6 as c_long,
            -3 as c_long,
            buffer.as_mut_ptr(),
            256 as c_long,
        )
    };
    if length < 0 {
        last()
    } else {
        text(&buffer[..(length as usize).min(256) - 1])
    }
}

/// `MODE NODES`, both hexadecimal: get_mempolicy(2).
fn memory_policy() -> String {
    let (mut mode, mut nodes) = (0 as c_int, [0u64; 16]);
    let (none, bits) = (0 as c_long, 1025 as c_long);
    let result = unsafe { syscall(239, &raw mut mode, nodes.as_mut_ptr(), bits, none, none) };
    if result < 0 {
        last()
    } else {
        format!("{mode:x} {:x}", nodes[0])
    }
}

fn tty() -> String {
    let mut size = [0u16; 4];
    let sized = unsafe { ioctl(0, 0x5413, size.as_mut_ptr()) };
    let ttys: String = (0..3)
        .map(|fd| if unsafe { isatty(fd) } == 1 { 't' } else { '-' })
        .collect();
    let path =
        fs::read_link("/proc/self/fd/0").map_or_else(|e| name(&e), |p| p.display().to_string());
    format!(
        "{ttys} {path} {}",
        if sized == 0 {
            format!("{}x{}", size[1], size[0])
        } else {
            last()
        }
    )
}

/// Waits for a change of the terminal's size to `COLUMNSxROWS`, however many signals that takes.
fn winch(size: &str) -> String {
    let set = block_all();
    println!("waiting");
    let mut signal = 0;
    while !tty().ends_with(size) {
        unsafe { sigwait(&set, &mut signal) };
    }
    tty()
}

fn block_all() -> [u64; 16] {
    let mut set = [0u64; 16];
    unsafe {
        sigfillset(&mut set);
        sigprocmask(0, &set, std::ptr::null_mut());
    }
    set
}

/// Prints each signal that arrives, until SIGTERM.
fn signals() -> String {
    let set = block_all();
    println!("ready");
    let mut signal = 0;
    while signal != 15 {
        unsafe { sigwait(&set, &mut signal) };
        if signal != 17 && signal != 18 {
            println!("signal {signal}");
        }
    }
    "terminated".into()
}

fn children(count: i64) -> String {
    for _ in 0..count {
        if unsafe { fork() } == 0 {
            forever();
        }
    }
    "ok".into()
}

/// Leaves one process that has neither the parent nor the session nor the process group of this one.
fn daemon() -> String {
    if unsafe { fork() } != 0 {
        return "ok".into();
    }
    unsafe { setsid() };
    if unsafe { fork() } == 0 {
        unsafe { setsid() };
        forever();
    }
    std::process::exit(0)
}

fn notify(message: &str) -> io::Result<()> {
    let path = std::env::var("NOTIFY_SOCKET").unwrap_or_default();
    let socket = std::os::unix::net::UnixDatagram::unbound()?;
    socket.send_to(message.as_bytes(), path).map(drop)
}

fn forever() -> ! {
    loop {
        std::thread::sleep(std::time::Duration::from_secs(3600));
    }
}

fn c(text: &str) -> CString {
    CString::new(text).unwrap_or_default()
}

fn number(text: &str) -> i64 {
    let (text, radix) = text.strip_prefix("0x").map_or((text, 10), |hex| (hex, 16));
    i64::from_str_radix(text, radix).unwrap_or(0)
}

fn checked(result: c_int) -> String {
    if result < 0 { last() } else { "ok".into() }
}

fn done(result: io::Result<()>) -> String {
    result.map_or_else(|e| name(&e), |()| "ok".into())
}

fn last() -> String {
    name(&io::Error::last_os_error())
}

fn name(error: &io::Error) -> String {
    let names = [
        (1, "EPERM"),
        (2, "ENOENT"),
        (3, "ESRCH"),
        (5, "EIO"),
        (6, "ENXIO"),
        (9, "EBADF"),
        (11, "EAGAIN"),
        (12, "ENOMEM"),
        (13, "EACCES"),
        (14, "EFAULT"),
        (16, "EBUSY"),
        (17, "EEXIST"),
        (19, "ENODEV"),
        (20, "ENOTDIR"),
        (21, "EISDIR"),
        (22, "EINVAL"),
        (25, "ENOTTY"),
        (26, "ETXTBSY"),
        (28, "ENOSPC"),
        (30, "EROFS"),
        (38, "ENOSYS"),
        (39, "ENOTEMPTY"),
        (40, "ELOOP"),
        (42, "ENOMSG"),
        (75, "EOVERFLOW"),
        (95, "EOPNOTSUPP"),
        (126, "ENOKEY"),
    ];
    let code = error.raw_os_error().unwrap_or(0);
    names
        .iter()
        .find(|(n, _)| *n == code)
        .map_or(format!("E{code}"), |(_, s)| s.to_string())
}

fn text(bytes: &[u8]) -> String {
    std::ffi::OsStr::from_bytes(bytes)
        .to_string_lossy()
        .trim_end_matches('\n')
        .escape_default()
        .to_string()
}

fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for ch in text.chars() {
        match ch {
            '"' | '\\' => {
                out.push('\\');
                out.push(ch)
            }
            ch if (ch as u32) < 0x20 => out.push_str(&format!("\\u{:04x}", ch as u32)),
            ch => out.push(ch),
        }
    }
    out.push('"');
    out
}
