//! Filters of `linux.seccomp` as the payload feels them.

use serde_json::{Value, json};

const GETCWD: &str = "syscall 79 z 4096";
const GETPRIORITY: &str = "syscall 140 0 0";

/// Allows everything but what the rules say.
fn allow_but(rules: Value) -> Value {
    json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"], "syscalls": rules})
}

#[test]
fn an_errno() {
    let mut c = bundle!().asks(&[GETCWD]);
    for (rule, errno) in [
        (
            json!({"names": ["getcwd"], "action": "SCMP_ACT_ERRNO"}),
            "EPERM",
        ),
        (
            json!({"names": ["getcwd"], "action": "SCMP_ACT_ERRNO", "errnoRet": 22}),
            "EINVAL",
        ),
        (
            json!({"names": ["getpid", "getcwd"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}),
            "ENOSYS",
        ),
    ] {
        c = c.set("/linux/seccomp", allow_but(json!([rule])));
        assert_eq!(c.run().ok().answer(GETCWD), errno);
    }
}

#[test]
fn without_new_privileges_or_with_them() {
    let rules = allow_but(json!([{"names": ["getpriority"], "action": "SCMP_ACT_ERRNO"}]));
    let mut c = bundle!()
        .asks(&[GETPRIORITY, "status NoNewPrivs", "status Seccomp"])
        .set("/linux/seccomp", rules);
    for (given, shown) in [(true, "1"), (false, "0")] {
        c = c
            .set("/process/noNewPrivileges", json!(given))
            .set("/process/user", json!({"uid": 1000, "gid": 1000}));
        let output = c.run().ok();
        assert_eq!(output.answer(GETPRIORITY), "EPERM");
        assert_eq!(output.answer("status NoNewPrivs"), shown);
        assert_eq!(output.answer("status Seccomp"), "2");
    }
}

#[test]
fn a_call_that_the_runtime_needs_can_be_denied() {
    let rules =
        allow_but(json!([{"names": ["getcwd", "chdir", "setgroups"], "action": "SCMP_ACT_ERRNO"}]));
    let c = bundle!()
        .asks(&[GETCWD])
        .set("/linux/seccomp", rules)
        .set("/process/noNewPrivileges", json!(false));
    let c = c.set("/process/user", json!({"uid": 1000, "gid": 1000}));
    assert_eq!(c.run().ok().answer(GETCWD), "EPERM");
}

#[test]
fn there_is_no_filter_when_none_is_asked_for() {
    let c = bundle!().asks(&["status Seccomp"]);
    assert_eq!(c.run().ok().answer("status Seccomp"), "0");
}

#[test]
fn a_kill() {
    let mut c = bundle!().asks(&[GETCWD]);
    for action in [
        "SCMP_ACT_KILL",
        "SCMP_ACT_KILL_THREAD",
        "SCMP_ACT_KILL_PROCESS",
        "SCMP_ACT_TRAP",
    ] {
        c = c.set(
            "/linux/seccomp",
            allow_but(json!([{"names": ["getcwd"], "action": action}])),
        );
        c.run().exits(128 + libc::SIGSYS);
    }
}

#[test]
fn a_log_lets_it_pass() {
    let rules = allow_but(json!([{"names": ["getcwd"], "action": "SCMP_ACT_LOG"}]));
    let c = bundle!().asks(&[GETCWD]).set("/linux/seccomp", rules);
    assert_eq!(c.run().ok().answer(GETCWD), "2");
}

#[test]
fn conditions_on_arguments() {
    // getpriority(which, who): `which` decides; 0 and 1 are valid for the own process.
    let condition = |op: &str, value: u64, two: u64| json!([{"index": 0, "op": op, "value": value, "valueTwo": two}]);
    let cases = [
        ("SCMP_CMP_EQ", 1, 0, [false, true, false]),
        ("SCMP_CMP_NE", 1, 0, [true, false, true]),
        ("SCMP_CMP_LT", 1, 0, [true, false, false]),
        ("SCMP_CMP_LE", 1, 0, [true, true, false]),
        ("SCMP_CMP_GT", 1, 0, [false, false, true]),
        ("SCMP_CMP_GE", 1, 0, [false, true, true]),
        ("SCMP_CMP_MASKED_EQ", 1, 1, [false, true, false]),
    ];
    let questions = ["syscall 140 0 0", "syscall 140 1 0", "syscall 140 2 0"];
    let mut c = bundle!().asks(&questions);
    for (op, value, two, denied) in cases {
        let rule = json!({"names": ["getpriority"], "action": "SCMP_ACT_ERRNO", "errnoRet": 16, "args": condition(op, value, two)});
        c = c.set("/linux/seccomp", allow_but(json!([rule])));
        let output = c.run().ok();
        let found = questions.map(|q| output.answer(q) == "EBUSY");
        assert_eq!(found, denied, "{op}");
    }
}

#[test]
fn conditions_look_at_all_64_bits() {
    let args = json!([{"index": 1, "op": "SCMP_CMP_EQ", "value": 0x1_0000_0000u64}]);
    let rule =
        json!({"names": ["getpriority"], "action": "SCMP_ACT_ERRNO", "errnoRet": 16, "args": args});
    let (high, low) = ("syscall 140 0 0x100000000", GETPRIORITY);
    let c = bundle!()
        .asks(&[high, low])
        .set("/linux/seccomp", allow_but(json!([rule])));
    let output = c.run().ok();
    assert_eq!(output.answer(high), "EBUSY");
    assert_ne!(output.answer(low), "EBUSY");
}

#[test]
fn all_conditions_of_a_rule_must_hold() {
    let args = json!([{"index": 0, "op": "SCMP_CMP_EQ", "value": 0}, {"index": 1, "op": "SCMP_CMP_EQ", "value": 77}]);
    let rule =
        json!({"names": ["getpriority"], "action": "SCMP_ACT_ERRNO", "errnoRet": 16, "args": args});
    let c = bundle!().asks(&["syscall 140 0 77", "syscall 140 0 0", "syscall 140 1 77"]);
    let output = c.set("/linux/seccomp", allow_but(json!([rule])));
    let output = output.run().ok();
    assert_eq!(output.answer("syscall 140 0 77"), "EBUSY");
    assert_ne!(output.answer("syscall 140 0 0"), "EBUSY");
    assert_ne!(output.answer("syscall 140 1 77"), "EBUSY");
}

#[test]
fn conditions_on_one_argument_are_alternatives() {
    let args = json!([{"index": 1, "op": "SCMP_CMP_EQ", "value": 5}, {"index": 1, "op": "SCMP_CMP_EQ", "value": 6}]);
    let rule =
        json!({"names": ["getpriority"], "action": "SCMP_ACT_ERRNO", "errnoRet": 16, "args": args});
    let questions = ["syscall 140 0 5", "syscall 140 0 6", "syscall 140 0 7"];
    let c = bundle!()
        .asks(&questions)
        .set("/linux/seccomp", allow_but(json!([rule])));
    let output = c.run().ok();
    assert_eq!(
        questions.map(|q| output.answer(q) == "EBUSY"),
        [true, true, false]
    );
}

/// What a static program and the way to its start need.
const NEEDED: &[&str] = &[
    "execve",
    "write",
    "writev",
    "exit_group",
    "exit",
    "brk",
    "arch_prctl",
    "set_tid_address",
    "set_robust_list",
    "rseq",
    "prlimit64",
    "mprotect",
    "mmap",
    "munmap",
    "readlink",
    "readlinkat",
    "getrandom",
    "read",
    "open",
    "openat",
    "close",
    "fstat",
    "newfstatat",
    "futex",
    "rt_sigaction",
    "rt_sigprocmask",
    "sigaltstack",
    "poll",
    "fcntl",
    "uname",
    "mremap",
    "madvise",
    "close_range",
    "openat2",
    "setuid",
    "setgid",
    "setgroups",
    "capget",
    "capset",
    "prctl",
    "chdir",
    "getcwd",
    "getppid",
    "getpid",
    "gettid",
    "epoll_ctl",
    "epoll_pwait",
    "nanosleep",
    "fchown",
    "getdents64",
    "tgkill",
    "sched_yield",
    "rt_sigreturn",
    "fstatfs",
    "stat",
    "faccessat2",
    "faccessat",
    "sendmsg",
    "sendto",
    "recvmsg",
    "dup3",
    "dup2",
    "ppoll",
    "umask",
    "statx",
    "lseek",
    "getuid",
    "getgid",
    "geteuid",
    "eventfd2",
    "pipe2",
    "clone",
    "clone3",
    "setresuid",
    "setresgid",
    "keyctl",
    "unshare",
    "setsid",
    "prlimit64",
    "seccomp",
    "unlink",
];

#[test]
fn a_default_that_denies() {
    let filter = json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 95,
        "syscalls": [{"names": NEEDED, "action": "SCMP_ACT_ALLOW"}]});
    let c = bundle!()
        .asks(&[GETPRIORITY, "mkdir /x"])
        .set("/linux/seccomp", filter);
    let output = c.run().ok();
    assert_eq!(output.answer(GETPRIORITY), "EOPNOTSUPP");
    assert_eq!(output.answer("mkdir /x"), "EOPNOTSUPP");
}

#[test]
fn calls_newer_than_the_profile_do_not_exist() {
    let filter = json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{"names": NEEDED, "action": "SCMP_ACT_ALLOW"}]});
    let c = bundle!()
        .asks(&["syscall 462 0", "syscall 500 0", GETPRIORITY])
        .set("/linux/seccomp", filter);
    let output = c.run().ok();
    assert_eq!(output.answer("syscall 462 0"), "ENOSYS");
    assert_eq!(output.answer("syscall 500 0"), "ENOSYS");
    assert_eq!(output.answer(GETPRIORITY), "EPERM");
}

#[test]
fn unknown_names_are_passed_over() {
    let rules = json!([{"names": ["call_of_the_future", "getcwd"], "action": "SCMP_ACT_ERRNO"},
        {"names": ["another_one"], "action": "SCMP_ACT_ERRNO"}]);
    let c = bundle!()
        .asks(&[GETCWD])
        .set("/linux/seccomp", allow_but(rules));
    assert_eq!(c.run().ok().answer(GETCWD), "EPERM");
}

#[test]
fn a_rule_that_repeats_the_default_is_passed_over() {
    let rules = json!([{"names": ["getcwd"], "action": "SCMP_ACT_ALLOW"}]);
    let c = bundle!()
        .asks(&[GETCWD])
        .set("/linux/seccomp", allow_but(rules));
    assert_eq!(c.run().ok().answer(GETCWD), "2");
}

#[test]
fn the_flags_of_the_spec() {
    let mut c = bundle!().asks(&[GETCWD]);
    for flags in [
        json!([]),
        json!(["SECCOMP_FILTER_FLAG_LOG"]),
        json!([
            "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
            "SECCOMP_FILTER_FLAG_TSYNC"
        ]),
    ] {
        let mut filter = allow_but(json!([{"names": ["getcwd"], "action": "SCMP_ACT_ERRNO"}]));
        filter["flags"] = flags;
        c = c.set("/linux/seccomp", filter);
        assert_eq!(c.run().ok().answer(GETCWD), "EPERM");
    }
}

#[test]
fn unknown_words_are_refused() {
    let mut c = bundle!();
    let rule = |action: &str| json!([{"names": ["getcwd"], "action": action}]);
    let cases = [
        (
            "linux.seccomp.defaultAction",
            json!({"defaultAction": "SCMP_ACT_NOPE"}),
        ),
        ("linux.seccomp.syscalls", allow_but(rule("SCMP_ACT_NOPE"))),
        (
            "linux.seccomp.architectures",
            json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_NOPE"]}),
        ),
        (
            "linux.seccomp.syscalls",
            allow_but(json!([{"names": ["getcwd"], "action": "SCMP_ACT_ERRNO",
            "args": [{"index": 0, "op": "SCMP_CMP_NOPE", "value": 0}]}])),
        ),
    ];
    for (field, filter) in cases {
        c = c.set("/linux/seccomp", filter);
        c.create().fails_naming(field);
        c.assert_gone();
    }
}

#[test]
fn bad_combinations_are_refused() {
    let mut c = bundle!();
    let cases = [
        (
            "linux.seccomp.defaultErrnoRet",
            json!({"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1, "syscalls": []}),
        ),
        (
            "linux.seccomp.listenerMetadata",
            json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "x", "syscalls": []}),
        ),
        (
            "linux.seccomp.syscalls",
            allow_but(json!([{"names": [], "action": "SCMP_ACT_ERRNO"}])),
        ),
        (
            "linux.seccomp.syscalls",
            allow_but(json!([{"names": ["write"], "action": "SCMP_ACT_NOTIFY"}])),
        ),
        (
            "linux.seccomp.defaultAction",
            json!({"defaultAction": "SCMP_ACT_NOTIFY", "syscalls": []}),
        ),
    ];
    for (field, filter) in cases {
        println!("{filter}");
        c = c.set("/linux/seccomp", filter);
        c.create().fails_naming(field);
        c.assert_gone();
    }
}

#[test]
fn a_filter_that_refuses_every_call_keeps_nobody_waiting() {
    for errno in [0, 1, 4095] {
        let filter = json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": errno});
        let c = bundle!().set("/linux/seccomp", filter);
        let output = c.run();
        assert_ne!(output.code(), 0, "{}", output.describe());
        c.delete(&["--force"]).ok();
        c.assert_gone();
    }
}
