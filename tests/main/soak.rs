//! Lifecycles for as long as COFFERDAM_SOAK says, in minutes, one a second, beside a container that lives all the time and
//! gets a health check as often: nothing of the host and nothing of that container grows. `make soak` prints the figures.

use crate::support::{Bundle, Running, binary, cgroup_root, skipped, wait_until};
use std::fmt::Write;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// What may be more at the end than at the beginning, for the sake of others on the host; and the kernel takes its time to
/// free a cgroup that was removed, and with it a device program.
const LIMITS: [(&str, i64); 9] = [
    ("mounts", 0),
    ("dying cgroups", 8),
    ("keys", 4),
    ("bpf programs", 8),
    ("processes", 0),
    ("open files of run", 0),
    ("memory of run, KiB", 64),
    ("open files of init", 0),
    ("bytes of the record", 0),
];

type Sample = [i64; LIMITS.len()];

fn minutes() -> Option<f64> {
    std::env::var("COFFERDAM_SOAK").ok()?.parse().ok()
}

#[test]
fn nothing_grows() {
    let c = bundle!().asks(&["pause"]);
    let Some(minutes) = minutes() else {
        return skipped("COFFERDAM_SOAK=MINUTES is not set");
    };
    let end = Instant::now() + Duration::from_secs_f64(minutes * 60.0);
    let lasting = Bundle::new("lasting").asks(&["pause"]);
    let running = lasting.call_new("run", &[]).spawn();
    wait_until("it runs", || {
        let state = lasting.call(&["state", &lasting.id]).finish();
        state.stdout().contains("\"running\"")
    });
    // What is loaded and cached on the first use.
    for _ in 0..5 {
        lifecycle(&c, &lasting);
    }
    let (mut samples, mut times) = (vec![], vec![]);
    // It mounts cgroup2 as the host has it; when a bundle is dropped, the options of the host's are compared.
    let shared = Bundle::new("shared").asks(&["exit 0"]);
    let shared = shared.without("/linux/namespaces", "type", "cgroup");
    while Instant::now() < end {
        let next = Instant::now() + Duration::from_secs(1);
        times.push(lifecycle(&c, &lasting));
        shared.run().ok().silent();
        samples.push(sample(&lasting, &running));
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    lasting.delete(&["--force"]).ok();
    running.wait();
    let growth = growth(&samples);
    let report = report(&samples, &growth, &times);
    eprint!("{report}");
    for ((name, limit), grown) in LIMITS.iter().zip(growth) {
        assert!(grown <= *limit, "{name} have grown by {grown}\n{report}");
    }
}

/// Gives how long it took, and how long `state` did.
fn lifecycle(c: &Bundle, lasting: &Bundle) -> [Duration; 2] {
    let begin = Instant::now();
    c.create().ok().silent();
    c.start().ok().silent();
    let asked = Instant::now();
    assert_eq!(c.status(), "running");
    let state = asked.elapsed();
    let args = ["exec", &lasting.id, "/payload", "exit", "3"];
    lasting.call(&args).finish().exits(3).silent();
    c.kill("KILL").ok().silent();
    c.wait_stopped();
    c.delete(&[]).ok().silent();
    c.assert_gone();
    [begin.elapsed(), state]
}

fn sample(lasting: &Bundle, running: &Running) -> Sample {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let entries = |path: &str| fs::read_dir(path).map_or(0, Iterator::count) as i64;
    let first = |text: &str| text.split_whitespace().next().and_then(|n| n.parse().ok());
    let after = |text: &str, name: &str| text.lines().find_map(|l| first(l.strip_prefix(name)?));
    let stat = read(&cgroup_root().join("cgroup.stat").display().to_string());
    let keys = read("/proc/key-users");
    let keys = keys
        .lines()
        .find_map(|l| first(l.trim().strip_prefix("0:")?));
    let run = running.child.id();
    let record = lasting.state_root().join(&lasting.id).join("state");
    [
        read("/proc/self/mountinfo").lines().count() as i64,
        after(&stat, "nr_dying_descendants ").unwrap_or(0),
        keys.unwrap_or(0),
        bpf_programs(),
        processes(),
        entries(&format!("/proc/{run}/fd")),
        after(&read(&format!("/proc/{run}/status")), "VmRSS:").unwrap_or(0),
        entries(&format!("/proc/{}/fd", lasting.pid())),
        fs::metadata(record).map_or(0, |meta| meta.len() as i64),
    ]
}

/// Those that run the runtime.
fn processes() -> i64 {
    let file = |path: &Path| fs::metadata(path).map(|meta| (meta.dev(), meta.ino()));
    let binary = file(&binary()).expect("the runtime");
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let own = |entry: &fs::DirEntry| file(&entry.path().join("exe")).is_ok_and(|exe| exe == binary);
    all.filter(own).count() as i64
}

/// bpf(2), BPF_PROG_GET_NEXT_ID: one after the other; none for who may not ask.
fn bpf_programs() -> i64 {
    const BPF_PROG_GET_NEXT_ID: i32 = 11;
    let mut attribute = [0u32; 64];
    for count in 0.. {
        let size = size_of_val(&attribute);
        // SAFETY: the attribute outlives the call, and its size is given.
        let result = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                BPF_PROG_GET_NEXT_ID,
                attribute.as_mut_ptr(),
                size,
            )
        };
        if result < 0 {
            return count;
        }
        attribute[0] = attribute[1];
    }
    0
}

/// From the least of the first quarter to the least of the last: what others do meanwhile comes and goes.
fn growth(samples: &[Sample]) -> Vec<i64> {
    let quarter = samples.len().div_ceil(4);
    let least = |part: &[Sample], index: usize| part.iter().map(|s| s[index]).min().unwrap_or(0);
    let (begin, end) = (&samples[..quarter], &samples[samples.len() - quarter..]);
    let grown = |index| least(end, index) - least(begin, index);
    (0..LIMITS.len()).map(grown).collect()
}

pub fn spread(mut times: Vec<Duration>) -> String {
    times.sort();
    let at = |percent| times.get(times.len() * percent / 100).copied();
    let [median, most] = [50, 99].map(|percent| at(percent).unwrap_or_default());
    format!("median {median:.1?}, 99 of 100 within {most:.1?}")
}

fn report(samples: &[Sample], growth: &[i64], times: &[[Duration; 2]]) -> String {
    let mut text = format!("{} lifecycles\n", samples.len());
    for (index, what) in ["lifecycle and exec", "state"].iter().enumerate() {
        let times = times.iter().map(|pair| pair[index]).collect();
        let _ = writeln!(text, "{what}: {}", spread(times));
    }
    for (index, (name, limit)) in LIMITS.iter().enumerate() {
        let values = samples.iter().map(|sample| sample[index]);
        let (least, most) = (values.clone().min().unwrap_or(0), values.max().unwrap_or(0));
        let grown = growth[index];
        let _ = writeln!(
            text,
            "{name}: {least} to {most}, grown by {grown} of {limit} at most"
        );
    }
    text
}
