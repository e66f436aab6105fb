# shellcheck shell=bash
# A host whose root is a ramfs, as while an initramfs runs: pivot_root(2) is refused there. Without an engine.

# in_ramfs DIRECTORY COMMAND..: runs a command in a mount namespace whose root is the kernel's own ramfs, with a copy of the
# directory as /box. That ramfs lies below the root of every namespace; what covers it is taken off in a private copy.
in_ramfs() {
    python3 - "$@" <<'PYTHON'
import contextlib, ctypes, os, shutil, sys
libc = ctypes.CDLL(None, use_errno=True)
NEWNS, DETACH, REC, PRIVATE = 0x20000, 2, 0x4000, 1 << 18
TMPFS_MAGIC, RAMFS_MAGIC = 0x01021994, 0x858458F6

def check(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

def mount(kind, target, options=b""):
    os.makedirs(target, exist_ok=True)
    check(libc.mount(kind, target.encode(), kind, 0, options))

# A new mount of cgroup2 sets the options of all.
with open("/proc/self/mountinfo") as table:
    words = next(line for line in table if " - cgroup2 " in line).split()[-1].split(",")
options = ",".join(word for word in words if word != "rw").encode()
source = os.open(sys.argv[1], os.O_RDONLY)
check(libc.unshare(NEWNS))
check(libc.mount(None, b"/", None, REC | PRIVATE, None))
own = os.open("/proc/self/ns/mnt", os.O_RDONLY)
check(libc.umount2(b"/", DETACH))
check(libc.setns(own, NEWNS))
kind = (ctypes.c_long * 32)()
check(libc.statfs(b"/", kind))
assert kind[0] in (TMPFS_MAGIC, RAMFS_MAGIC), hex(kind[0])
mount(b"tmpfs", "/box")
os.fchdir(source)
shutil.copytree(".", "/box", symlinks=True, dirs_exist_ok=True)
os.chdir("/")
mount(b"proc", "/proc")
mount(b"sysfs", "/sys")
mount(b"cgroup2", "/sys/fs/cgroup", options)
mount(b"tmpfs", "/dev")
os.mknod("/dev/null", 0o20666, os.makedev(1, 3))
code = os.spawnvpe(os.P_WAIT, sys.argv[2], sys.argv[2:], {"PATH": "/box/rootfs/bin"})
# The directories are in the ramfs, which is everybody's; a kernel may have some of its own in there.
for place in ("/dev", "/sys/fs/cgroup", "/sys", "/proc", "/box"):
    check(libc.umount2(place.encode(), DETACH))
for place in ("/dev", "/sys", "/proc", "/box"):
    with contextlib.suppress(OSError):
        os.rmdir(place)
sys.exit(code)
PYTHON
}

test_the_root_is_moved_where_it_cannot_be_pivoted() {
    local dir answer
    dir=$(bundle 'unshare -U true && ls / | xargs; sleep 600' '.root.path = "rootfs"')
    cp -a "$busybox" "$dir/rootfs"
    cp "$(command -v cofferdam)" "$dir/cofferdam"
    tells 1 pivot_root in_ramfs "$dir" /box/cofferdam --root /box/state run --bundle /box plain
    # shellcheck disable=SC2016 # for the shell that is called
    answer=$(in_ramfs "$dir" /box/rootfs/bin/sh -xec 'cd /box
        run="./cofferdam --root /box/state"
        $run run --no-pivot --detach --bundle /box moved >/box/out
        while [ ! -s /box/out ]; do sleep 0.1; done
        cat /box/out
        $run exec moved ls / | xargs
        $run delete --force moved')
    same 2 "$(grep -cx 'bin dev etc proc root sys tmp var' <<<"$answer")"
}
