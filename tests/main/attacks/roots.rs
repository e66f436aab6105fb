//! T22: the way out of the root by chroot(2), with pivot_root(2) and with `--no-pivot`, and what is left of the host's mounts.

use super::ways::each_way;
use crate::mounts_on_root::{entry, first, tree};
use crate::support::{Bundle, copy_program};
use serde_json::json;
use std::fs;

/// Flags of unshare(2): user, mount, pid and network namespace.
const UNSHARE_ALL: &str = "syscall 272 0x70020000";

const WAYS: [&[&str]; 2] = [&[], &["--no-pivot"]];

/// A file of the host that nobody may see, next to the bundle's root.
fn with_secret(c: Bundle, flags: &[&str]) -> (Bundle, String) {
    let secret = c.path("secret");
    fs::write(&secret, "of the host").expect("write");
    (c.flag(flags), format!("read {secret}"))
}

/// chroot(2) into a directory leaves the working directory outside of the root, and ".." leads on from there.
#[test]
fn t22_no_nested_chroot_leads_out_of_the_root() {
    for flags in WAYS {
        for c in each_way!() {
            let (c, secret) = with_secret(c.caps(&["CAP_SYS_CHROOT"]), flags);
            let (chroot, last) = ("syscall 161 s:/d", "syscall 161 s:.");
            let mut questions = vec!["mkdir /d", chroot];
            questions.extend(["syscall 80 s:.."; 64]);
            questions.extend([last, &secret, "read /own"]);
            let c = c.file("/own", "own").asks(&questions);
            let output = c.run().ok();
            for done in [chroot, last] {
                assert_eq!(output.answer(done), "0", "{flags:?}");
            }
            assert_eq!(output.answer(&secret), "ENOENT", "{flags:?}");
            assert_eq!(output.answer("read /own"), "own", "{flags:?}");
        }
    }
}

/// The root that is covered by a mount on `/` is none of the container's, and neither is the host's.
#[test]
fn t22_nothing_is_left_below_a_mount_on_the_root() {
    for flags in WAYS {
        for c in each_way!() {
            let of_root = c.spec["linux"]["uidMappings"].is_null();
            let (c, secret) = with_secret(c.caps(&["CAP_SYS_CHROOT", "CAP_SYS_ADMIN"]), flags);
            let tree = tree(&c);
            fs::write(c.path("tree/own"), "own").expect("write");
            let (chroot, last) = ("syscall 161 s:/d", "syscall 161 s:.");
            let mut questions = vec!["mkdir /d", chroot];
            questions.extend(["syscall 80 s:.."; 64]);
            questions.extend([last, &secret, "read /covered", "read /own"]);
            let c = first(c, entry("bind", &tree, "/", &["rbind"]));
            let c = c.file("/covered", "rootfs").asks(&questions);
            if !of_root {
                c.give("tree", 100000);
            }
            let output = c.run().ok();
            assert_eq!(output.answer(last), "0", "{flags:?}");
            for (question, answer) in [(&*secret, "ENOENT"), ("read /covered", "ENOENT")] {
                assert_eq!(output.answer(question), answer, "{flags:?}");
            }
            assert_eq!(output.answer("read /own"), "own", "{flags:?}");
            if flags.is_empty() {
                let c = c.asks(&["umount /", "read /covered", &secret]);
                let output = c.run().ok();
                assert_eq!(output.answer("read /covered"), "ENOENT");
                assert_eq!(output.answer(&secret), "ENOENT");
            }
        }
    }
}

/// The same for a process that joins.
#[test]
fn t22_a_joined_process_has_the_same_root() {
    for flags in WAYS {
        for c in each_way!() {
            let (c, secret) = with_secret(c.caps(&["CAP_SYS_CHROOT"]), flags);
            let c = c.file("/own", "own").folder("/d").asks(&["pause"]);
            c.create().ok();
            c.start().ok();
            let mut words = vec!["exec", &c.id, "/payload", "syscall", "161", "s:/d", ";"];
            words.extend([&["syscall", "80", "s:..", ";"][..]; 64].concat());
            words.extend("syscall 161 s:. ;".split(' '));
            words.extend(secret.split(' '));
            words.extend("; read /own".split(' '));
            let output = c.call(&words).finish().ok();
            assert_eq!(output.answer("syscall 161 s:."), "0", "{flags:?}");
            assert_eq!(output.answer(&secret), "ENOENT", "{flags:?}");
            assert_eq!(output.answer("read /own"), "own", "{flags:?}");
            c.delete(&["--force"]).ok();
        }
    }
}

/// The kernel refuses it to a process whose root is not that of its mount namespace.
#[test]
fn t22_user_namespaces_can_be_made_inside() {
    for flags in WAYS {
        for c in each_way!() {
            let question = "syscall 272 0x10000000";
            let c = c.flag(flags).asks(&[question]);
            let output = c.run().ok();
            assert_eq!(output.answer(question), "0", "{flags:?}");
        }
    }
}

/// A user namespace may mount a procfs or a sysfs where one can be seen in whole: those of the host would show what is
/// masked in the container's.
#[test]
fn t22_no_mask_is_undone_by_a_procfs_of_the_host_that_is_left() {
    let map = "write /proc/self/uid_map 0\t0\t1";
    for (flags, kind) in [(WAYS[0], "proc"), (WAYS[1], "proc"), (WAYS[1], "sysfs")] {
        for c in each_way!() {
            let mount = format!("exec /payload mount {kind} /tmp 0");
            let c = c.caps(&["CAP_SETFCAP"]).flag(flags);
            let c = c.asks(&[UNSHARE_ALL, map, &mount]);
            let output = c.run().ok();
            assert_eq!(output.answer(UNSHARE_ALL), "0", "{flags:?}");
            assert_eq!(output.answer(map), "ok", "{flags:?}");
            let refused = format!("0:mount {kind} /tmp 0 => EPERM");
            assert_eq!(output.answer(&mount), refused, "{flags:?}");
        }
    }
}

/// With CAP_SYS_ADMIN the moved root can be taken off again: no mount of the host but that of its root may be left below.
#[test]
fn t22_no_mount_of_the_host_stays_below_the_moved_root() {
    let c = bundle!().with_tmpfs("mounted", 0).flag(&["--no-pivot"]);
    let file = c.path("mounted/file");
    fs::write(&file, "of the host").expect("write");
    let read = format!("read {file}");
    let open = "syscall 2 s:/proc/self/ns/mnt 0";
    let (take_off, enter) = ("syscall 166 s:/ 2", "syscall 308 3 0x20000");
    let caps = ["CAP_SYS_ADMIN", "CAP_SYS_CHROOT"];
    let c = c.caps(&caps).asks(&[open, take_off, enter, &read]);
    let output = c.run().ok();
    for (question, answer) in [(open, "3"), (take_off, "0"), (enter, "0")] {
        assert_eq!(output.answer(question), answer, "{question}");
    }
    assert_eq!(output.answer(&read), "ENOENT");
}

/// Where the root is shared with the host, the new root and what is taken away below it must not show there.
#[test]
fn t22_a_shared_root_that_is_moved_changes_no_mount_of_the_host() {
    for word in ["shared", "slave"] {
        let c = bundle!().with_tmpfs("mounted", 0).flag(&["--no-pivot"]);
        // On a mount of its own, so that nothing else makes the root of the host private.
        let rootfs = c.dir.join("mounted/rootfs");
        fs::create_dir_all(rootfs.join("proc")).expect("mkdir");
        for name in ["dev", "sys", "tmp"] {
            fs::create_dir(rootfs.join(name)).expect("mkdir");
        }
        copy_program(&c.rootfs().join("payload"), &rootfs.join("payload"));
        let c = c.set("/root/path", json!(rootfs));
        let c = c.set("/linux/rootfsPropagation", json!(word));
        let c = c.asks(&["mountinfo /", "syscall 272 0x10000000"]);
        let script = "mount --make-rshared /; before=$(cat /proc/self/mountinfo); \"$0\" \"$@\"; code=$?
            [ \"$(cat /proc/self/mountinfo)\" = \"$before\" ] || { cat /proc/self/mountinfo; code=99; }
            exit $code";
        let call = c.call_new("run", &[]).through_shell(script);
        let output = call.setup(crate::support::private_mounts).finish().ok();
        assert_eq!(output.answer("syscall 272 0x10000000"), "0", "{word}");
        let shared = output.answer("mountinfo /").contains(" shared:");
        assert_eq!(shared, word == "shared");
    }
}

/// An overlay without a directory of its own is on the root of the host from the beginning.
#[test]
fn t22_an_overlay_becomes_the_root_by_being_moved() {
    for own_directory in [true, false] {
        let (c, secret) = with_secret(bundle!(), &["--no-pivot"]);
        let lower = json!({"dev.cofferdam.overlay.lower": c.path("rootfs")});
        let unshare = "syscall 272 0x10000000";
        let c = c.set("/annotations", lower).asks(&[&secret, unshare]);
        let c = match own_directory {
            true => c,
            false => c.remove("/root"),
        };
        let output = c.run().ok();
        assert_eq!(output.answer(&secret), "ENOENT");
        assert_eq!(output.answer(unshare), "0");
    }
}

/// A caller that is in a chroot itself, of which the rest of the host is outside.
#[test]
fn t22_no_nested_chroot_leads_out_of_a_chroot_of_the_caller() {
    for flags in WAYS {
        let (c, secret) = with_secret(bundle!().with_tmpfs("host", 0), flags);
        let (chroot, last) = ("syscall 161 s:/d", "syscall 161 s:.");
        let mut questions = vec!["mkdir /d", chroot];
        questions.extend(["syscall 80 s:.."; 64]);
        questions.extend([last, &secret, "read /own"]);
        let c = c
            .file("/own", "own")
            .caps(&["CAP_SYS_CHROOT"])
            .asks(&questions);
        // A root of its own with the bundle and all that the program needs.
        let script = "cd \"$PWD/host\" && mkdir proc sys dev && mount --rbind /proc proc && mount --rbind /sys sys
            mknod -m 666 dev/null c 1 3 && cp \"$0\" program && cp -r ../rootfs ../config.json . || exit 99
            shift 2; exec chroot . /program --root /state \"$@\"";
        let dir = ["--bundle", "/"];
        c.write_config();
        let args = [&["run"], flags, &dir, &[c.id.as_str()]].concat();
        let call = c.call(&args).cwd(&c.dir).through_shell(script);
        let output = call.setup(crate::support::private_mounts).finish().ok();
        for done in [chroot, last] {
            assert_eq!(output.answer(done), "0", "{flags:?}");
        }
        assert_eq!(output.answer(&secret), "ENOENT", "{flags:?}");
        assert_eq!(output.answer("read /own"), "own", "{flags:?}");
    }
}

/// Without the capability neither the runtime nor the container could leave a root.
#[test]
fn t22_a_caller_without_the_capability_needs_no_way_out() {
    let c = bundle!().asks(&["caps Bnd"]);
    let script = "exec setpriv --bounding-set -sys_chroot --inh-caps -sys_chroot -- \"$0\" \"$@\"";
    let call = c.call_new("run", &[]).through_shell(script);
    call.finish().ok();
}
