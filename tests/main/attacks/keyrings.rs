//! T31: session keyrings that are made, joined or linked by somebody else.

use super::ways::each_way;
use crate::support::Bundle;
use std::ffi::CString;
use std::fs;
use std::io;

/// Asks for the serial number of the session keyring: keyctl(KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING).
const SERIAL: &str = "syscall 250 0 -3";

const THREAD_KEYRING: i64 = -1;
const JOIN_SESSION_KEYRING: i64 = 1;
const SETPERM: i64 = 5;
const DESCRIBE: i64 = 6;
const LINK: i64 = 8;
const EVERYTHING: i64 = 0x3f3f_3f3f;

/// The keyrings of a test are those of its thread, and end with it.
fn keyctl(operation: i64, arguments: [i64; 3]) -> io::Result<i64> {
    let [first, second, third] = arguments;
    // SAFETY: a pointer among the arguments is that of a C string, or NULL.
    let result = unsafe { libc::syscall(libc::SYS_keyctl, operation, first, second, third) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// Makes a keyring of this name in which everybody may do everything.
fn open_keyring(name: &str) -> i64 {
    let name = CString::new(name).expect("a name");
    let none = std::ptr::null::<u8>();
    // SAFETY: both strings are C strings.
    let made = unsafe {
        let (kind, name) = (c"keyring".as_ptr(), name.as_ptr());
        libc::syscall(libc::SYS_add_key, kind, name, none, 0, THREAD_KEYRING)
    };
    assert!(made > 0, "{}", io::Error::last_os_error());
    keyctl(SETPERM, [made, EVERYTHING, 0]).expect("give everybody all rights");
    made
}

fn serial(answer: &str) -> i64 {
    answer.parse().expect("the number of a keyring")
}

/// Starts a container that tells its session keyring and lives on.
fn started(c: &Bundle) -> i64 {
    let output = c.up();
    output.wait_for(SERIAL);
    serial(&output.answer(SERIAL))
}

#[test]
fn t31_a_keyring_that_has_the_name_already_is_not_joined() {
    let c = bundle!().asks(&[SERIAL]);
    let before = open_keyring(&format!("_ses.{}", c.id));
    let own = serial(&c.run().ok().answer(SERIAL));
    assert_ne!(own, before);
}

#[test]
fn t31_two_containers_of_one_id_have_two_keyrings() {
    let one = bundle!().asks(&[SERIAL, "pause"]);
    let mut other = Bundle::new("keyrings").asks(&[SERIAL, "pause"]);
    other.id.clone_from(&one.id);
    assert_ne!(started(&one), started(&other));
}

#[test]
fn t31_a_process_that_joins_has_the_keyring_of_the_container() {
    for c in each_way!() {
        let c = c.asks(&[SERIAL, "pause"]);
        let own = started(&c);
        let words: Vec<&str> = ["exec", &c.id, "/payload"]
            .into_iter()
            .chain(SERIAL.split(' '))
            .collect();
        let joined = serial(&c.call(&words).finish().ok().answer(SERIAL));
        assert_eq!(own, joined);
    }
}

/// A process of the same user, in no user namespace of its own, as another container would be.
#[test]
fn t31_others_neither_see_the_keyring_nor_get_hold_of_it() {
    let c = bundle!().asks(&[SERIAL, "pause"]);
    let own = started(&c);
    let refused = |done: io::Result<i64>| {
        let errno = done.err().and_then(|error| error.raw_os_error());
        assert_eq!(errno, Some(libc::EACCES));
    };
    refused(keyctl(LINK, [own, THREAD_KEYRING, 0]));
    refused(keyctl(DESCRIBE, [own, 0, 0]));
    let keys = fs::read_to_string("/proc/keys").expect("read /proc/keys");
    assert!(!keys.contains(&format!("_ses.{}", c.id)), "{keys}");
    let name = CString::new(format!("_ses.{}", c.id)).expect("a name");
    let joined = keyctl(JOIN_SESSION_KEYRING, [name.as_ptr() as i64, 0, 0]).expect("join");
    assert_ne!(joined, own);
}
