//! What each verb takes: its flags and operands, as clap reads them and `--help` explains them.
//!
//! Plain data for the commands, filled in by `cli::parse`.

use std::path::PathBuf;

use clap::{ArgAction, Args, ValueEnum};

#[derive(Args, Debug, Default)]
pub struct Create {
    #[command(flatten)]
    pub flags: CreateFlags,
    // Engines may send these two: create never waits, and so it adopts nobody.
    #[arg(short, long, hide = true)]
    pub detach: bool,
    #[arg(long, hide = true)]
    pub no_subreaper: bool,
    /// Name of the new container: letters, digits, and any of _ + . -
    pub id: String,
}

/// What create and run have in common.
#[derive(Args, Debug, Default)]
pub struct CreateFlags {
    /// The bundle
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub bundle: PathBuf,
    /// Read FILE instead of the bundle's config.json
    #[arg(short = 'f', long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Write the process id to FILE once the container is created
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Print what would be done and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Send the terminal to this unix socket, for process.terminal
    #[arg(long, value_name = "SOCKET", help_heading = "Descriptors")]
    pub console_socket: Option<PathBuf>,
    /// Send a pidfd of the container to this unix socket
    #[arg(long, value_name = "SOCKET", help_heading = "Descriptors")]
    pub pidfd_socket: Option<PathBuf>,
    /// Hand on N more descriptors, from 3 + $LISTEN_FDS upwards
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        help_heading = "Descriptors"
    )]
    pub preserve_fds: u32,
    /// Change the root without pivot_root, for a root file system on a ramdisk; less safe
    #[arg(long, help_heading = "Isolation")]
    pub no_pivot: bool,
    /// Share the session keyring of the caller
    #[arg(long, help_heading = "Isolation")]
    pub no_new_keyring: bool,
}

#[derive(Args, Debug, Default)]
pub struct Run {
    #[command(flatten)]
    pub flags: CreateFlags,
    /// Return once the program runs, do not wait for its end
    #[arg(short, long, help_heading = "Foreground")]
    pub detach: bool,
    /// Leave the container when its program has ended
    #[arg(long, help_heading = "Foreground")]
    pub keep: bool,
    /// Do not adopt processes that the container leaves behind
    #[arg(long, help_heading = "Foreground")]
    pub no_subreaper: bool,
    /// Run on an overlay of these directories, without a bundle; once for each, top first
    #[arg(long = "layer", value_name = "DIR", action = ArgAction::Append, help_heading = "Root file system")]
    pub layers: Vec<PathBuf>,
    /// Keep what the container changes above its layers in DIR [default: lost with the container]
    #[arg(long, value_name = "DIR", help_heading = "Root file system")]
    pub upper: Option<PathBuf>,
    /// Name of the new container: letters, digits, and any of _ + . -
    pub id: String,
    /// Run this instead of process.args
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

#[derive(Args, Debug)]
pub struct Start {
    /// Name of the container
    pub id: String,
}

#[derive(Args, Debug)]
pub struct State {
    /// Name of the container
    pub id: String,
}

#[derive(Args, Debug, Default)]
pub struct Kill {
    /// Signal every process of the container; no error if it has stopped
    #[arg(short, long)]
    pub all: bool,
    /// Take the name for a pattern: signal every container whose whole name matches
    #[arg(short, long)]
    pub regex: bool,
    /// Name of the container
    pub id: String,
    /// A number or a name, with or without SIG
    #[arg(default_value = "SIGTERM", allow_hyphen_values = true)]
    pub signal: String,
}

#[derive(Args, Debug, Default)]
pub struct Delete {
    /// Kill the container if it runs; no error if it does not exist
    #[arg(short, long)]
    pub force: bool,
    /// Take the name for a pattern: delete every container whose whole name matches
    #[arg(short, long)]
    pub regex: bool,
    /// Name of the container
    pub id: String,
}

#[derive(Args, Debug, Default)]
pub struct Exec {
    /// Take the process from FILE, as in `process` of a config.json
    #[arg(short, long, value_name = "FILE")]
    pub process: Option<PathBuf>,
    /// Give the process a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Run as UID[:GID], or by name as the container's /etc/passwd has it
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// Add a group, by number; may be repeated
    #[arg(short = 'g', long, value_name = "GID", action = ArgAction::Append)]
    pub additional_gids: Vec<u32>,
    /// Start in this directory of the container
    #[arg(long, value_name = "DIR")]
    pub cwd: Option<String>,
    /// Set a variable; may be repeated
    #[arg(short, long, value_name = "NAME=VALUE", action = ArgAction::Append)]
    pub env: Vec<String>,
    /// Add a capability, such as CAP_NET_ADMIN; may be repeated
    #[arg(short, long, value_name = "CAPABILITY", action = ArgAction::Append)]
    pub cap: Vec<String>,
    /// Gain no privileges by exec
    #[arg(long)]
    pub no_new_privs: bool,
    /// AppArmor profile of the process
    #[arg(long, value_name = "PROFILE")]
    pub apparmor: Option<String>,
    /// SELinux label of the process
    #[arg(long, value_name = "LABEL")]
    pub process_label: Option<String>,
    /// Run in this cgroup below the container's
    #[arg(long, value_name = "PATH", action = ArgAction::Append)]
    pub cgroup: Vec<String>,
    /// Do not wait for the end of the process
    #[arg(short, long)]
    pub detach: bool,
    /// Write the number of the process to FILE
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Send the master of the terminal to this socket
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// Send a pidfd of the process to this socket
    #[arg(long, value_name = "SOCKET")]
    pub pidfd_socket: Option<PathBuf>,
    /// Hand on N descriptors of the caller, from 3 on
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub preserve_fds: u32,
    /// Run in a paused container too; the process waits until it is resumed
    #[arg(long)]
    pub ignore_paused: bool,
    #[arg(long, hide = true)]
    pub no_subreaper: bool,
    /// Name of the container
    pub id: String,
    /// Command and its arguments
    #[arg(
        value_name = "COMMAND",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    pub command: Vec<String>,
}

#[derive(Args, Debug)]
pub struct Pause {
    /// Name of the container
    pub id: String,
}

#[derive(Args, Debug)]
pub struct Ps {
    /// Print what ps(1) prints, or an array of process numbers
    #[arg(short, long, default_value = "table")]
    pub format: Format,
    /// Name of the container
    pub id: String,
    /// Options of ps(1)
    #[arg(
        value_name = "PS OPTIONS",
        default_value = "-ef",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    pub ps_args: Vec<String>,
}

#[derive(Args, Debug)]
pub struct List {
    /// Print a table, or a JSON array of states
    #[arg(short, long, default_value = "table")]
    pub format: Format,
    /// Print only the names
    #[arg(short, long)]
    pub quiet: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Table,
    Json,
}

#[derive(Args, Debug, Default)]
pub struct Spec {
    /// Write it into DIR
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub bundle: PathBuf,
    /// For a user who is not root: a user namespace with this user as root in it
    #[arg(long)]
    pub rootless: bool,
    /// Set the hostname
    #[arg(long, value_name = "NAME")]
    pub hostname: Option<String>,
    /// Directory of the root filesystem, relative to the bundle
    #[arg(long, value_name = "DIR")]
    pub rootfs: Option<String>,
    /// Set a variable; may be repeated
    #[arg(short, long, value_name = "NAME=VALUE", action = ArgAction::Append)]
    pub env: Vec<String>,
    /// Start in this directory of the container
    #[arg(long, value_name = "DIR")]
    pub cwd: Option<String>,
    /// Run as UID[:GID]
    #[arg(short, long, value_name = "UID[:GID]")]
    pub user: Option<String>,
    /// A word of the command; may be repeated
    #[arg(long, value_name = "WORD", action = ArgAction::Append)]
    pub args: Vec<String>,
    /// The command, in place of --args; without a terminal
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

#[derive(Args, Debug)]
pub struct Update {
    /// Take all limits from FILE, a JSON object as `linux.resources`; - is standard input
    #[arg(short, long, value_name = "FILE")]
    pub resources: Option<PathBuf>,
    /// Share of IO against others, from 10 to 1000
    #[arg(long, value_name = "WEIGHT", help_heading = "Limits")]
    pub blkio_weight: Option<u16>,
    /// Microseconds over which --cpu-quota counts
    #[arg(long, value_name = "US", help_heading = "Limits")]
    pub cpu_period: Option<u64>,
    /// Microseconds of CPU in each period; -1 is no limit
    #[arg(long, value_name = "US", help_heading = "Limits")]
    pub cpu_quota: Option<i64>,
    /// Microseconds that may be saved up above the quota
    #[arg(long, value_name = "US", help_heading = "Limits")]
    pub cpu_burst: Option<u64>,
    /// Share of CPU against others, from 2 to 262144; 1024 is the default of the kernel
    #[arg(long, value_name = "SHARES", help_heading = "Limits")]
    pub cpu_share: Option<u64>,
    /// Run only when nobody else wants the CPU: 0 or 1
    #[arg(long, value_name = "0|1", help_heading = "Limits")]
    pub cpu_idle: Option<i64>,
    /// CPUs to run on, such as 0-3,7
    #[arg(long, value_name = "LIST", help_heading = "Limits")]
    pub cpuset_cpus: Option<String>,
    /// Memory nodes to take memory from, such as 0-1
    #[arg(long, value_name = "LIST", help_heading = "Limits")]
    pub cpuset_mems: Option<String>,
    /// Bytes of memory, such as 512m or 1g; -1 is no limit
    #[arg(long, value_name = "BYTES", help_heading = "Limits")]
    pub memory: Option<String>,
    /// Bytes of memory that are not reclaimed while others have more
    #[arg(long, value_name = "BYTES", help_heading = "Limits")]
    pub memory_reservation: Option<String>,
    /// Bytes of memory and swap together; -1 is no limit
    #[arg(long, value_name = "BYTES", help_heading = "Limits")]
    pub memory_swap: Option<String>,
    /// Number of processes and threads; -1 is no limit
    #[arg(long, value_name = "N", help_heading = "Limits")]
    pub pids_limit: Option<i64>,
    /// Schema of the L3 cache, for a container with linux.intelRdt
    #[arg(long, value_name = "SCHEMA", help_heading = "Limits")]
    pub l3_cache_schema: Option<String>,
    /// Schema of the memory bandwidth, for a container with linux.intelRdt
    #[arg(long, value_name = "SCHEMA", help_heading = "Limits")]
    pub mem_bw_schema: Option<String>,
    // Of cgroup v1 only; without effect.
    #[arg(long, hide = true)]
    pub cpu_rt_period: Option<u64>,
    #[arg(long, hide = true)]
    pub cpu_rt_runtime: Option<i64>,
    #[arg(long, hide = true)]
    pub kernel_memory: Option<String>,
    #[arg(long, hide = true)]
    pub kernel_memory_tcp: Option<String>,
    /// Name of the container
    pub id: String,
}

#[derive(Args, Debug)]
pub struct Events {
    /// Time between two reports, such as 5s or 500ms
    #[arg(long, value_name = "TIME", default_value = "5s")]
    pub interval: String,
    /// Print one report and end
    #[arg(long)]
    pub stats: bool,
    /// Name of the container
    pub id: String,
}

#[derive(Args, Debug)]
pub struct Stats {
    /// Print once and end
    #[arg(long)]
    pub no_stream: bool,
    /// Print a table, or JSON, an object a line for each container
    #[arg(short, long, default_value = "table")]
    pub format: Format,
    /// Names of containers [default: all that run]
    pub ids: Vec<String>,
}

#[derive(Args, Debug)]
pub struct Check {
    /// Print a table, or JSON
    #[arg(short, long, default_value = "table")]
    pub format: Format,
}

#[derive(Args, Debug)]
pub struct Mounts {
    /// What to do
    pub action: MountsAction,
    /// Name of the container
    pub id: String,
    /// add: SOURCE DESTINATION; remove: DESTINATION
    #[arg(value_name = "PATH")]
    pub paths: Vec<String>,
    /// add: type of the filesystem; bind: a file or directory of the host, with all below it
    #[arg(
        short = 't',
        long = "type",
        value_name = "TYPE",
        default_value = "bind"
    )]
    pub kind: String,
    /// add: options as in mounts[].options, with commas
    #[arg(short, long, value_name = "OPTIONS", default_value = "")]
    pub options: String,
    /// add, remove: take them from FILE, a JSON array as `mounts`; - is standard input
    #[arg(short = 'f', long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MountsAction {
    Add,
    Remove,
    List,
}

#[derive(Args, Debug)]
pub struct Completion {
    /// The shell that is to complete the command line
    pub shell: Shell,
}

#[derive(Args, Debug)]
pub struct Complete {
    /// The words after the name of the program, up to the one to complete
    #[arg(last = true, value_name = "WORD")]
    pub words: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    Bash,
    Zsh,
    Fish,
}

#[derive(Args, Debug)]
pub struct Man {
    /// Directory for the pages
    pub dir: PathBuf,
}
