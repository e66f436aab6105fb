//! `kill`: sends a signal to a container's init, or to all its processes.

use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::sys::signal::Signal;

use super::ps;
use crate::cli::args;
use crate::lifecycle::remove;
use crate::state::container::{Container, Status, not_running};
use crate::state::store::Store;
use crate::sys::{self, process};

/// How long `kill` waits for the death of init, so that `state` says stopped afterwards. A loaded machine takes seconds to end many
/// processes; callers have timeouts of ten seconds.
const KILL_WAIT: Duration = Duration::from_secs(5);

pub fn run(args: &args::Kill, store: &Store) -> Result<i32> {
    let signal = parse(&args.signal)?;
    let kill = |id: &String| kill(&store.find(id)?, signal, args.all);
    super::for_each(&store.resolve_ids(&args.id, args.regex)?, kill)
}

fn kill(container: &Container, signal: i32, all: bool) -> Result<()> {
    let (status, init) = container.status_and_init()?;
    match status {
        Status::Stopped => return signal_others(container, signal, all),
        Status::Created | Status::Running | Status::Paused => {}
        Status::Creating => bail!(not_running()),
    }
    let everybody = all || !container.state.private_pids;
    let killed = if everybody && signal == libc::SIGKILL {
        remove::signal_kill(container)?
    } else if all {
        signal_all(container, signal)?;
        None
    } else {
        let init = init.with_context(not_running)?;
        match process::pidfd_send_signal(&init, signal) {
            // It has ended since.
            Err(error) if sys::errno(&error) == Some(Errno::ESRCH) => bail!(not_running()),
            sent => sent?,
        }
        Some(init).filter(|_| signal == libc::SIGKILL)
    };
    if let Some(init) = killed {
        // An init in uninterruptible sleep dies later.
        container.dies_within(&init, KILL_WAIT)?;
    }
    Ok(())
}

/// Signals what has outlived an init that shared its pid namespace. Engines clean up this way.
fn signal_others(container: &Container, signal: i32, all: bool) -> Result<()> {
    let cgroup = container.cgroup()?;
    let others = cgroup.map_or(Ok(Vec::new()), |cgroup| cgroup.all_processes())?;
    let is_kill = signal == libc::SIGKILL;
    let have_outlived = !container.state.private_pids && !others.is_empty();
    ensure!(all || is_kill && have_outlived, not_running());
    match is_kill {
        true => remove::kill_all(container),
        false => signal_each(&others, signal),
    }
}

fn signal_all(container: &Container, signal: i32) -> Result<()> {
    signal_each(&ps::pids(container)?, signal)
}

fn signal_each(pids: &[i32], signal: i32) -> Result<()> {
    for pid in pids {
        // One that has ended meanwhile has no need of the signal.
        if let Ok(pidfd) = process::pidfd_open(*pid) {
            process::pidfd_send_signal(pidfd, signal).ok();
        }
    }
    Ok(())
}

/// A number, or a name with or without SIG, in any case; real-time signals as RTMIN+n and RTMAX-n.
pub fn parse(text: &str) -> Result<i32> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let number = match name.parse::<i32>() {
        Ok(number) => Some(number).filter(|number| (0..=64).contains(number)),
        Err(_) => Signal::from_str(&format!("SIG{name}"))
            .ok()
            .map(|signal| signal as i32)
            .or_else(|| real_time(name)),
    };
    match number {
        Some(number) => Ok(number),
        None => {
            bail!("unknown signal {text:?}: give a name such as TERM, or a number from 0 to 64")
        }
    }
}

/// signal(7): the kernel's 32 to 64, of which the C library keeps the first two.
fn real_time(name: &str) -> Option<i32> {
    const FIRST: i32 = 34;
    const LAST: i32 = 64;
    let number = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(""), _) => FIRST,
        (_, Some("")) => LAST,
        (Some(offset), _) => FIRST + i32::from(offset.strip_prefix('+')?.parse::<u8>().ok()?),
        (_, Some(offset)) => LAST - i32::from(offset.strip_prefix('-')?.parse::<u8>().ok()?),
        _ => return None,
    };
    (FIRST..=LAST).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn signals_by_name_and_number() {
        let known = [
            ("KILL", 9),
            ("SIGKILL", 9),
            ("sigterm", 15),
            ("term", 15),
            ("9", 9),
            ("0", 0),
            ("RTMIN", 34),
            ("SIGRTMIN+1", 35),
            ("RTMAX-14", 50),
            ("64", 64),
        ];
        for (text, number) in known {
            assert_eq!(parse(text).unwrap(), number, "{text}");
        }
        for text in [
            "",
            "SIG",
            "NOPE",
            "65",
            "-1",
            "RTMIN+40",
            "RTMIN-1",
            "9x",
            "RTMIN+2147483647",
            "RTMAX--5",
            "RTMAX--2147483648",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
