//! Scheduler, I/O priority, personality and memory policy -> the numbers that the kernel takes.

use std::fmt;

use anyhow::{Context, Result, ensure};
use oci_spec::runtime::{
    IOPriorityClass, Linux, LinuxIOPriority, LinuxPersonalityDomain, LinuxSchedulerFlag,
    LinuxSchedulerPolicy, Process, Scheduler as Spec,
};

use super::mempolicy::{MemoryPolicy, memory_policy};
use crate::plan::cpu_list;
use crate::sys::process::SchedAttr;

#[derive(Debug, Default)]
pub struct Scheduling {
    pub scheduler: Option<SchedAttr>,
    /// Class and level as ioprio_set(2) packs them.
    pub io_priority: Option<i32>,
    /// As personality(2) takes it.
    pub personality: Option<u64>,
    pub memory_policy: Option<MemoryPolicy>,
    /// Of a process that joins a container; init runs wherever its cgroup lets it.
    pub affinity: Affinity,
}

/// Bits of the processors to run on, the lowest first; none stands for no wish.
#[derive(Debug, Default, PartialEq)]
pub struct Affinity {
    /// While the process is not in the container's cgroup yet.
    pub initial: Vec<u64>,
    pub last: Vec<u64>,
}

/// SCHED_CAPACITY_SCALE: as much as a processor has.
const MOST_UTILIZATION: u32 = 1024;

pub fn scheduling(process: &Process, linux: Option<&Linux>) -> Result<Scheduling> {
    let personality = linux.and_then(|linux| linux.personality().as_ref());
    if let Some(personality) = personality {
        let flags = personality.flags().as_deref().unwrap_or_default();
        ensure!(
            flags.is_empty(),
            "linux.personality.flags: {flags:?}: the spec defines none"
        );
    }
    Ok(Scheduling {
        scheduler: process.scheduler().as_ref().map(scheduler).transpose()?,
        io_priority: process
            .io_priority()
            .as_ref()
            .map(io_priority)
            .transpose()?,
        personality: personality.map(|personality| match personality.domain() {
            LinuxPersonalityDomain::PerLinux => 0,
            LinuxPersonalityDomain::PerLinux32 => 8,
        }),
        memory_policy: linux
            .and_then(|linux| linux.memory_policy().as_ref())
            .map(memory_policy)
            .transpose()?,
        affinity: affinity(process)?,
    })
}

fn affinity(process: &Process) -> Result<Affinity> {
    // sched_setaffinity(2): more than CONFIG_NR_CPUS of any kernel.
    const MOST: usize = 8192;
    let spec = process.exec_cpu_affinity().as_ref();
    let bits = |name: &str, list: Option<&String>| {
        let list = list.map_or("", String::as_str);
        let field = || format!("process.execCPUAffinity.{name}: {list:?}");
        cpu_list::bits(list, MOST).with_context(field)
    };
    let initial = spec.and_then(|spec| spec.initial().as_ref());
    let last = spec.and_then(|spec| spec.cpu_affinity_final().as_ref());
    Ok(Affinity {
        initial: bits("initial", initial)?,
        last: bits("final", last)?,
    })
}

fn scheduler(spec: &Spec) -> Result<SchedAttr> {
    use LinuxSchedulerPolicy::{
        SchedBatch, SchedDeadline, SchedFifo, SchedIso, SchedOther, SchedRr,
    };
    let field = "process.scheduler";
    let policy = *spec.policy();
    let (nice, priority) = (spec.nice().unwrap_or(0), spec.priority().unwrap_or(0));
    ensure!(
        nice == 0 || matches!(policy, SchedOther | SchedBatch),
        "{field}.nice: {nice}: is for SCHED_OTHER and SCHED_BATCH only"
    );
    ensure!(
        (-20..=19).contains(&nice),
        "{field}.nice: {nice}: must be from -20 to 19"
    );
    let real_time = matches!(policy, SchedFifo | SchedRr);
    ensure!(
        priority == 0 || real_time,
        "{field}.priority: {priority}: is for SCHED_FIFO and SCHED_RR only"
    );
    ensure!(
        !real_time || (1..=99).contains(&priority),
        "{field}.priority: {priority}: must be from 1 to 99"
    );
    let times = [*spec.runtime(), *spec.deadline(), *spec.period()].map(Option::unwrap_or_default);
    ensure!(
        policy == SchedDeadline || times == [0; 3],
        "{field}.runtime, deadline and period are for SCHED_DEADLINE only"
    );
    ensure!(
        policy != SchedIso,
        "{field}.policy: SCHED_ISO: no Linux kernel has it; use SCHED_OTHER"
    );
    let [runtime, deadline, period] = times;
    check_deadline(policy == SchedDeadline, times)?;
    let flags = spec
        .flags()
        .iter()
        .flatten()
        .fold(0, |bits, flag| bits | flag_bit(*flag));
    let size = size_of::<SchedAttr>() as u32;
    let (policy, priority) = (policy_number(policy), priority as u32);
    Ok(SchedAttr {
        size,
        policy,
        flags,
        nice,
        priority,
        runtime,
        deadline,
        period,
        least_utilization: 0,
        most_utilization: MOST_UTILIZATION,
    })
}

/// sched(7), "SCHED_DEADLINE": runtime <= deadline <= period, and at least 1024 ns, the kernel's resolution.
fn check_deadline(wanted: bool, [runtime, deadline, period]: [u64; 3]) -> Result<()> {
    const LEAST: u64 = 1024;
    let period = if period == 0 { deadline } else { period };
    ensure!(
        !wanted || (LEAST <= runtime && runtime <= deadline && deadline <= period),
        "process.scheduler: runtime {runtime}, deadline {deadline}, period {period}: SCHED_DEADLINE needs \
         {LEAST} <= runtime <= deadline <= period, in nanoseconds"
    );
    Ok(())
}

/// sched(7); SCHED_ISO has a number, but no kernel has it.
fn policy_number(policy: LinuxSchedulerPolicy) -> u32 {
    match policy {
        LinuxSchedulerPolicy::SchedOther => 0,
        LinuxSchedulerPolicy::SchedFifo => 1,
        LinuxSchedulerPolicy::SchedRr => 2,
        LinuxSchedulerPolicy::SchedBatch => 3,
        LinuxSchedulerPolicy::SchedIso => 4,
        LinuxSchedulerPolicy::SchedIdle => 5,
        LinuxSchedulerPolicy::SchedDeadline => 6,
    }
}

fn flag_bit(flag: LinuxSchedulerFlag) -> u64 {
    match flag {
        LinuxSchedulerFlag::SchedResetOnFork => 0x01,
        LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
        LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
        LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
        LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
        LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
        LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
    }
}

fn io_priority(spec: &LinuxIOPriority) -> Result<i32> {
    const CLASS_SHIFT: u32 = 13;
    let level = spec.priority();
    ensure!(
        (0..=7).contains(&level),
        "process.ioPriority.priority: {level}: must be from 0 to 7"
    );
    let class = match spec.class() {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    Ok(class << CLASS_SHIFT | level as i32)
}

impl fmt::Display for Scheduling {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        if let Some(scheduler) = &self.scheduler {
            let SchedAttr {
                policy,
                flags,
                nice,
                priority,
                runtime,
                deadline,
                period,
                ..
            } = scheduler;
            writeln!(
                f,
                "scheduler policy {policy}, nice {nice}, priority {priority}, flags {flags:#x}, \
                runtime {runtime}, deadline {deadline}, period {period}"
            )?;
        }
        if let Some(priority) = self.io_priority {
            writeln!(
                f,
                "io priority class {}, level {}",
                priority >> 13,
                priority & 7
            )?;
        }
        if let Some(personality) = self.personality {
            writeln!(f, "personality {personality:#x}")?;
        }
        if let Some(policy) = &self.memory_policy {
            writeln!(f, "{policy}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::plan::tests::{assert_faults, plan};

    #[test]
    fn policies_and_flags_have_the_kernels_numbers() {
        for (number, name) in [
            (0, "OTHER"),
            (1, "FIFO"),
            (2, "RR"),
            (3, "BATCH"),
            (5, "IDLE"),
        ] {
            let priority = if matches!(name, "FIFO" | "RR") { 1 } else { 0 };
            let config = json!({"policy": format!("SCHED_{name}"), "priority": priority});
            let scheduler = plan(&[("/process/scheduler", config)])
                .process
                .scheduling
                .scheduler
                .unwrap();
            assert_eq!((scheduler.policy, scheduler.size), (number, 56), "{name}");
        }
        let config = json!({
            "policy": "SCHED_DEADLINE", "runtime": 1024, "deadline": 2000, "period": 3000,
            "flags": ["SCHED_FLAG_RESET_ON_FORK", "SCHED_FLAG_DL_OVERRUN"],
        });
        let scheduler = plan(&[("/process/scheduler", config)])
            .process
            .scheduling
            .scheduler
            .unwrap();
        assert_eq!((scheduler.policy, scheduler.flags), (6, 0x05));
        assert_eq!(
            [scheduler.runtime, scheduler.deadline, scheduler.period],
            [1024, 2000, 3000]
        );
    }

    #[test]
    fn faults_name_the_field() {
        let scheduler =
            |policy: &str, field: &str, value: i64| json!({"policy": policy, field: value});
        for (scheduler, words) in [
            (
                scheduler("SCHED_FIFO", "nice", 1),
                "process.scheduler.nice: 1: is for SCHED_OTHER",
            ),
            (
                scheduler("SCHED_OTHER", "nice", 20),
                "process.scheduler.nice: 20: must be from -20 to 19",
            ),
            (
                scheduler("SCHED_BATCH", "nice", -21),
                "process.scheduler.nice: -21: must be from -20 to 19",
            ),
            (
                scheduler("SCHED_OTHER", "priority", 1),
                "process.scheduler.priority: 1: is for SCHED_FIFO",
            ),
            (
                scheduler("SCHED_RR", "priority", 0),
                "process.scheduler.priority: 0: must be from 1 to 99",
            ),
            (
                scheduler("SCHED_FIFO", "priority", 100),
                "process.scheduler.priority: 100: must be from 1 to 99",
            ),
            (
                scheduler("SCHED_IDLE", "period", 1),
                "process.scheduler.runtime, deadline and period are for",
            ),
        ] {
            assert_faults(&[("/process/scheduler", scheduler, words)]);
        }
        for (priority, words) in [
            (8, "process.ioPriority.priority: 8: must be"),
            (-1, "process.ioPriority.priority: -1: must be"),
        ] {
            let config = json!({"class": "IOPRIO_CLASS_BE", "priority": priority});
            assert_faults(&[("/process/ioPriority", config, words)]);
        }
    }

    #[test]
    fn io_priority_and_personality_are_packed_for_the_kernel() {
        for (class, number) in [("RT", 1), ("BE", 2), ("IDLE", 3)] {
            let config = json!({"class": format!("IOPRIO_CLASS_{class}"), "priority": 5});
            let scheduling = plan(&[("/process/ioPriority", config)]).process.scheduling;
            assert_eq!(scheduling.io_priority, Some(number << 13 | 5));
        }
        let domain = |name: &str| -> Value { json!({"domain": name}) };
        for (name, number) in [("LINUX", 0), ("LINUX32", 8)] {
            let scheduling = plan(&[("/linux/personality", domain(name))])
                .process
                .scheduling;
            assert_eq!(scheduling.personality, Some(number));
        }
        assert_eq!(plan(&[]).process.scheduling.to_string(), "");
    }
}
