//! Network devices that move into the container: names, addresses, and what is refused.
//! Each test has a network of its own, in which the runtime runs too, so that the host's stays as it is.

use crate::support::{Bundle, lines, skipped};
use serde_json::{Value, json};
use std::panic::resume_unwind;
use std::process::Command;

/// Runs a test in a network namespace of its own, if devices can be made there.
fn in_a_network(test: impl FnOnce() + Send) {
    let inside = || {
        // SAFETY: unshare touches no memory; it concerns this thread and what that starts.
        let result = unsafe { libc::unshare(libc::CLONE_NEWNET) };
        assert_eq!(result, 0, "unshare the network namespace");
        match try_ip("link add dev0 type veth peer name peer0") {
            Ok(_) => test(),
            Err(reason) => return Some(reason),
        }
        None
    };
    // In a thread even if the tests run one by one: the main thread must stay where it is.
    let ended = std::thread::scope(|scope| scope.spawn(inside).join());
    if let Some(reason) = ended.unwrap_or_else(|panic| resume_unwind(panic)) {
        skipped(&format!("no veth device here: {reason}"));
    }
}

fn try_ip(args: &str) -> Result<String, String> {
    let call = Command::new("ip").args(args.split(' ')).output();
    let output = call.map_err(|error| format!("ip: {error}"))?;
    let text = |bytes| String::from_utf8_lossy(bytes).trim().to_string();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(text(&output.stderr))
    }
}

fn ip(args: &str) -> String {
    try_ip(args).unwrap_or_else(|error| panic!("ip {args}: {error}"))
}

/// The names of the devices in this thread's network.
fn here() -> Vec<String> {
    names(&ip("-json link"))
}

fn names(links: &str) -> Vec<String> {
    let links: Value = serde_json::from_str(links).expect("ip prints JSON");
    let name = |link: &Value| link["ifname"].as_str().expect("a name").to_string();
    let mut names: Vec<String> = links.as_array().expect("a list").iter().map(name).collect();
    names.sort();
    names
}

/// What `ip` shows in the container's network namespace.
fn of_container(c: &Bundle, args: &str) -> String {
    let pid = c.pid().to_string();
    let call = Command::new("nsenter")
        .args(["--target", &pid, "--net", "ip"])
        .args(args.split(' '))
        .output()
        .expect("run nsenter");
    let error = String::from_utf8_lossy(&call.stderr);
    assert!(call.status.success(), "ip {args}: {error}");
    String::from_utf8_lossy(&call.stdout).into_owned()
}

/// The device as `ip` shows it, and its addresses with prefix and scope.
fn device(c: &Bundle, name: &str) -> (Value, Vec<String>) {
    let shown = of_container(c, &format!("-json address show dev {name}"));
    let mut list: Value = serde_json::from_str(&shown).expect("ip prints JSON");
    let address = |address: &Value| {
        let text = |key: &str| address[key].as_str().unwrap_or_default().to_string();
        format!(
            "{}/{} {}",
            text("local"),
            address["prefixlen"],
            text("scope")
        )
    };
    let addresses = list[0]["addr_info"].as_array().expect("addresses");
    let addresses = addresses.iter().map(address).collect();
    (list[0].take(), addresses)
}

fn is_up(link: &Value) -> bool {
    let flags = link["flags"].as_array().expect("flags");
    flags.contains(&json!("UP"))
}

fn moving(c: Bundle, devices: Value) -> Bundle {
    c.set("/linux/netDevices", devices).asks(&["pause"])
}

fn joined(c: Bundle, path: &str) -> Bundle {
    c.without("/linux/namespaces", "type", "network").push(
        "/linux/namespaces",
        json!({"type": "network", "path": path}),
    )
}

#[test]
fn a_device_moves_with_its_addresses_and_is_up() {
    let c = moving(bundle!(), json!({"dev0": {}}));
    in_a_network(|| {
        ip("link set dev0 mtu 1400 address 02:11:22:33:44:55");
        ip("address add 10.1.0.1/24 dev dev0");
        ip("address add 10.1.0.2/24 dev dev0");
        ip("address add 10.2.0.1 peer 10.2.0.2/32 dev dev0");
        ip("address add fd00::1/64 dev dev0 nodad");
        ip("address add fd00::2/64 dev dev0 nodad");
        c.up();
        assert_eq!(here(), ["lo", "peer0"]);
        let (link, addresses) = device(&c, "dev0");
        assert!(is_up(&link), "{link}");
        assert_eq!(
            (&link["mtu"], &link["address"]),
            (&json!(1400), &json!("02:11:22:33:44:55"))
        );
        let expected = [
            "10.1.0.1/24 global",
            "10.2.0.1/32 global",
            "10.1.0.2/24 global",
            "fd00::2/64 global",
            "fd00::1/64 global",
        ];
        assert_eq!(addresses, expected);
        assert_eq!(link["addr_info"][1]["address"], "10.2.0.2");
        let routes = of_container(&c, "route");
        assert!(routes.contains("10.1.0.0/24 dev dev0"), "{routes}");
    });
}

#[test]
fn only_lasting_global_addresses_move() {
    let c = moving(bundle!(), json!({"dev0": {}}));
    in_a_network(|| {
        ip("address add 10.1.0.1/24 dev dev0 valid_lft 1000 preferred_lft 1000");
        ip("address add 169.254.1.1/16 dev dev0 scope link");
        ip("address add fd00::1/64 dev dev0 nodad valid_lft 1000 preferred_lft 1000");
        ip("address add fe80::77/64 dev dev0 nodad");
        ip("address add 10.3.0.1/24 dev dev0");
        c.up();
        let (_, addresses) = device(&c, "dev0");
        // The kernel itself gives a device that is up one of its own.
        let moved = addresses.iter().filter(|text| !text.ends_with(" link"));
        assert_eq!(moved.collect::<Vec<_>>(), ["10.3.0.1/24 global"]);
        assert!(!addresses.concat().contains("fe80::77"), "{addresses:?}");
        assert!(!addresses.concat().contains("169.254"), "{addresses:?}");
    });
}

#[test]
fn attributes_of_addresses_move_too() {
    let c = moving(bundle!(), json!({"dev0": {"name": "eth0"}}));
    in_a_network(|| {
        ip(
            "address add 10.3.0.1/24 broadcast 10.3.0.99 dev dev0 label dev0:x metric 77 noprefixroute",
        );
        c.up();
        let (link, _) = device(&c, "eth0");
        let address = &link["addr_info"][0];
        assert_eq!(
            (&address["broadcast"], &address["metric"]),
            (&json!("10.3.0.99"), &json!(77))
        );
        assert_eq!(address["noprefixroute"], true, "{address}");
        // The old label would name a device that is not there.
        assert_eq!(address["label"], "eth0", "{address}");
    });
}

#[test]
fn devices_are_renamed_even_to_names_of_each_other() {
    let c = bundle!();
    in_a_network(|| {
        ip("link add dev1 type veth peer name peer1");
        ip("address add 10.1.0.1/24 dev dev0");
        ip("address add 10.1.1.1/24 dev dev1");
        let c = moving(
            c,
            json!({"dev0": {"name": "dev1"}, "dev1": {"name": "dev0"}}),
        );
        c.up();
        assert_eq!(device(&c, "dev1").1, ["10.1.0.1/24 global"]);
        assert_eq!(device(&c, "dev0").1, ["10.1.1.1/24 global"]);
    });
}

#[test]
fn templates_take_the_lowest_number_that_is_free() {
    let c = bundle!();
    in_a_network(|| {
        ip("link add eth0 type veth peer name peer1");
        ip("link add dev2 type veth peer name peer2");
        let template = json!({"name": "eth%d"});
        let c = moving(
            c,
            json!({"dev0": &template, "eth0": &template, "dev2": {"name": "eth1"}}),
        );
        c.up();
        let names = names(&of_container(&c, "-json link"));
        assert_eq!(names, ["eth0", "eth1", "eth2", "lo"]);
        assert_eq!(here(), ["lo", "peer0", "peer1", "peer2"]);
    });
}

#[test]
fn hooks_find_the_devices_in_place() {
    let mut c = moving(bundle!(), json!({"dev0": {"name": "eth0"}}));
    let file = c.path("seen");
    let find = r#"pid=$(sed 's/.*"pid": *\([0-9]*\).*/\1/')"#;
    let script =
        format!("{find}; nsenter --target $pid --net ip -json address show dev eth0 > {file}");
    let env = ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"];
    let hook = json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": env});
    c = c.push("/hooks/createRuntime", hook);
    in_a_network(|| {
        ip("address add 10.1.0.1/24 dev dev0");
        c.create().ok();
        let seen: Value = serde_json::from_str(&lines(file.as_ref()).concat()).expect("JSON");
        assert!(is_up(&seen[0]), "{seen}");
        assert_eq!(seen[0]["addr_info"][0]["local"], "10.1.0.1");
    });
}

#[test]
fn sysctls_find_the_devices_in_place() {
    let c = moving(bundle!(), json!({"dev0": {"name": "eth0"}}));
    let file = "/proc/sys/net/ipv4/conf/eth0/arp_ignore";
    let c = c.asks(&[&format!("read {file}")]);
    let c = c.set(
        "/linux/sysctl",
        json!({"net.ipv4.conf.eth0.arp_ignore": "1"}),
    );
    in_a_network(|| assert_eq!(c.run().ok().answer(&format!("read {file}")), "1"));
}

#[test]
fn a_container_in_a_user_namespace_gets_devices() {
    let c = moving(bundle!(), json!({"dev0": {"name": "eth0"}})).in_user_namespace();
    in_a_network(|| {
        ip("address add 10.1.0.1/24 dev dev0");
        c.up();
        let (link, addresses) = device(&c, "eth0");
        assert!(is_up(&link), "{link}");
        assert_eq!(addresses, ["10.1.0.1/24 global"]);
    });
}

#[test]
fn devices_move_into_a_joined_namespace() {
    let owner = bundle!();
    let c = Bundle::new("joins");
    in_a_network(|| {
        ip("link add dev1 type veth peer name peer1");
        let owner = moving(owner, json!({"dev0": {"name": "eth0"}}));
        owner.up();
        let c = joined(c, &format!("/proc/{}/ns/net", owner.pid()));
        let taken = moving(c, json!({"dev1": {"name": "eth0"}}));
        let output = taken.create();
        output
            .fails_naming("linux.netDevices.dev1: the container's network namespace has a device");
        taken.assert_gone();
        assert_eq!(here(), ["dev1", "lo", "peer0", "peer1"]);
        let c = moving(taken, json!({"dev1": {"name": "eth1"}}));
        c.up();
        assert!(is_up(&device(&c, "eth1").0));
        assert!(is_up(&device(&owner, "eth0").0));
    });
}

#[test]
fn delete_does_not_move_them_back() {
    let c = moving(bundle!(), json!({"dev0": {}}));
    in_a_network(|| {
        c.up();
        c.delete(&["--force"]).ok();
        assert!(!here().contains(&"dev0".to_string()));
    });
}

#[test]
fn the_network_of_the_caller_is_no_destination() {
    let c = bundle!();
    in_a_network(|| {
        let c = joined(c, "/proc/thread-self/ns/net");
        let c = moving(c, json!({"dev0": {"name": "eth0"}}));
        c.create()
            .fails_naming("linux.netDevices: the container's network namespace is the one");
        c.assert_gone();
        let c = c.without("/linux/namespaces", "type", "network");
        c.create().fails_naming("{\"type\": \"network\"}");
        assert!(here().contains(&"dev0".to_string()));
    });
}

#[test]
fn what_cannot_move_is_refused() {
    let mut c = bundle!();
    in_a_network(|| {
        ip("link property add dev dev0 altname other0");
        let cases = [
            (
                "nothing0",
                "eth0",
                "linux.netDevices.nothing0: there is no such network device",
            ),
            (
                "other0",
                "eth0",
                "linux.netDevices.other0: is another name of the network device \"dev0\"",
            ),
            ("lo", "eth0", "linux.netDevices.lo: "),
            (
                "dev0",
                "lo",
                "linux.netDevices.dev0: the container's network namespace has a device \"lo\" already",
            ),
            ("dev0", "a/b", "linux.netDevices.dev0.name: \"a/b\": "),
            (
                "dev0",
                "1234567890123456",
                "linux.netDevices.dev0.name: \"1234567890123456\": ",
            ),
            ("dev0", "", "linux.netDevices.dev0.name: \"\": "),
        ];
        for (device, name, words) in cases {
            c = moving(c, json!({device: {"name": name}}));
            c.create().fails_naming(words);
            c.assert_gone();
            assert_eq!(here(), ["dev0", "lo", "peer0"], "{device} as {name}");
        }
    });
}

#[test]
fn moving_needs_privilege_over_the_network() {
    let c = moving(bundle!(), json!({"dev0": {}}));
    in_a_network(|| {
        // Root of a user namespace, but not of the one that the network belongs to.
        let call = c.call_new("create", &[]);
        let call = call.through_shell("exec unshare --user --map-root-user \"$0\" \"$@\"");
        call.finish()
            .fails_naming("linux.netDevices.dev0: moving it needs CAP_NET_ADMIN");
        let call = c.call_new("create", &[]);
        let call = call.through_shell("exec setpriv --bounding-set -net_admin \"$0\" \"$@\"");
        call.finish()
            .fails_naming("linux.netDevices: moving devices of the host needs CAP_NET_ADMIN");
        assert!(here().contains(&"dev0".to_string()));
    });
}
