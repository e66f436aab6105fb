//! Sources and options of mounts that are longer than one call of the kernel takes, an overlay's list of layers above all.

use crate::mounts::{has, options_of};
use crate::overlay::long_name;
use crate::support::Bundle;
use std::fs;

/// Layers with one file each, whose paths together have about `length` bytes.
fn many(c: &Bundle, length: usize) -> Vec<String> {
    let folder = "f".repeat(100);
    let make = |index: usize| {
        let path = c.path(&format!("{folder}/{index}"));
        fs::create_dir_all(&path).expect("mkdir");
        fs::write(format!("{path}/file-{index}"), "x").expect("write");
        path
    };
    let each = c.path(&folder).len() + 3;
    (0..length.div_ceil(each)).map(make).collect()
}

/// An overlay among the mounts, as of an image volume.
fn mounted(c: Bundle, options: &[&str]) -> Bundle {
    c.mount("overlay", "overlay", "/over", options)
}

/// The lengths around the limits of fsconfig(2), and what one page of mount(2) holds at most.
#[test]
fn a_long_list_of_layers_is_mounted() {
    for length in [250, 300, 1000, 3500] {
        let c = bundle!();
        let layers = many(&c, length);
        let last = format!("read /over/file-{}", layers.len() - 1);
        let lower = format!("lowerdir={}", layers.join(":"));
        let c = mounted(c, &[&lower]).asks(&["read /over/file-0", &last]);
        let output = c.run().ok();
        assert_eq!(output.answer("read /over/file-0"), "x", "{length}");
        assert_eq!(output.answer(&last), "x", "{length}");
    }
}

/// More than a page; the kernel takes 500 layers.
#[test]
fn a_list_of_layers_longer_than_a_page_is_mounted() {
    let c = bundle!();
    let layers = many(&c, 12000);
    let last = format!("read /over/file-{}", layers.len() - 1);
    let lower = format!("lowerdir={}", layers.join(":"));
    let c = mounted(c, &[&lower]).asks(&["read /over/file-0", &last]);
    let output = c.run().ok();
    assert_eq!(output.answer("read /over/file-0"), "x");
    assert_eq!(output.answer(&last), "x");
}

#[test]
fn an_overlay_with_long_directories_is_mounted() {
    let c = bundle!();
    let [lower, upper, work] = ["l", "upper", "work"].map(|base| {
        let name = long_name(&c, base);
        c.path(&name)
    });
    fs::write(format!("{lower}/file"), "text").expect("write");
    let options = [
        format!("lowerdir={lower}"),
        format!("upperdir={upper},workdir={work}"),
    ];
    let c = mounted(c, &[&options[0], &options[1]]);
    let c = c.asks(&["read /over/file", "write /over/new text"]);
    let output = c.run().ok();
    assert_eq!(output.answer("read /over/file"), "text");
    assert_eq!(output.answer("write /over/new text"), "ok");
    let written = fs::read_to_string(format!("{upper}/new"));
    assert_eq!(written.expect("written"), "text");
}

#[test]
fn a_long_list_of_layers_in_a_user_namespace() {
    let c = bundle!().in_user_namespace();
    let layers = many(&c, 1000);
    let lower = format!("lowerdir={}", layers.join(":"));
    let c = mounted(c, &[&lower]).asks(&["read /over/file-0"]);
    c.give(&"f".repeat(100), 100000);
    assert_eq!(c.run().ok().answer("read /over/file-0"), "x");
}

/// A long source leaves mount(2) alone, which also serves kernels without the options for single layers.
#[test]
fn an_overlay_with_a_long_source_is_mounted() {
    for c in [bundle!(), bundle!().in_user_namespace()] {
        let layers = many(&c, 1000);
        let lower = format!("lowerdir={}", layers.join(":"));
        let source = "s".repeat(256);
        let c = c
            .mount("overlay", &source, "/over", &[&lower, "nosuid", "noatime"])
            .asks(&["read /over/file-0", "mountinfo /over", "mounts"]);
        c.give(&"f".repeat(100), 100000);
        let output = c.run().ok();
        assert_eq!(output.answer("read /over/file-0"), "x");
        let line = output.answer("mountinfo /over");
        assert!(line.contains("nosuid,noatime"), "{line}");
        assert!(line.contains(&format!(" - overlay {source} ")), "{line}");
        let places = output.answer("mounts");
        assert_eq!(places.matches("/over").count(), 1, "{places}");
    }
}

#[test]
fn a_missing_layer_of_a_long_list_is_named() {
    let c = bundle!();
    let missing = c.path(&"missing".repeat(20));
    let lower = format!("lowerdir={}:{missing}", many(&c, 1000).join(":"));
    let c = mounted(c, &[&lower]);
    c.create()
        .fails_naming("No such file or directory")
        .fails_naming(&missing);
    c.assert_gone();
}
/// fsconfig(2) takes 255 bytes of a string, mount(2) a path's length of a source and a page of options.
#[test]
fn long_sources_and_options_are_mounted() {
    for length in [255, 256, 1000, 4095] {
        let source = "s".repeat(length);
        let c = bundle!()
            .mount("tmpfs", &source, "/mnt", &["size=64k", "ro"])
            .asks(&["mountinfo /mnt"]);
        let line = c.run().ok().answer("mountinfo /mnt");
        assert!(
            line.contains(&format!(" - tmpfs {source} ")),
            "{length}: {line}"
        );
        let (mount, filesystem) = options_of(&line);
        assert!(has(&mount, "ro") && has(&filesystem, "size=64k"), "{line}");
    }
    for length in [255, 256, 1000] {
        let size = format!("size=0x{}10000", "0".repeat(length - 7));
        let c = bundle!()
            .mount("tmpfs", "tmpfs", "/mnt", &[&size, "nosuid"])
            .asks(&["mountinfo /mnt"]);
        let (mount, filesystem) = options_of(&c.run().ok().answer("mountinfo /mnt"));
        assert!(
            has(&mount, "nosuid") && has(&filesystem, "size=64k"),
            "{length}"
        );
    }
}

#[test]
fn a_string_that_no_call_takes_is_named_with_the_limit() {
    let c = bundle!();
    let size = format!("size=0x{}10000", "0".repeat(5000));
    let before = c.spec.clone();
    let mut c = c.mount("tmpfs", &"s".repeat(4096), "/mnt", &[]);
    c.create()
        .fails_naming("source: has 4096 bytes; mount(2) takes at most 4095");
    c.assert_gone();
    c.spec = before;
    let c = c.mount("tmpfs", "tmpfs", "/mnt", &[&size]);
    c.create()
        .fails_naming("bytes together; mount(2) takes at most 4095");
    c.assert_gone();
}

/// overlayfs.rst: a backslash takes the meaning from the comma, the colon and the backslash in its paths.
#[test]
fn commas_colons_and_quotes_in_paths_of_layers() {
    let c = bundle!();
    let names = ["a,b", "c:d", "e\\f", "g\"h", "i\",j"];
    let mut list = vec![];
    for (index, name) in names.iter().enumerate() {
        fs::create_dir(c.dir.join(name)).expect("mkdir");
        fs::write(c.dir.join(name).join(format!("file-{index}")), "x").expect("write");
        let name = name.replace('\\', "\\\\").replace(',', "\\,");
        list.push(c.path(&name.replace(':', "\\:")));
    }
    let lower = format!("index=off,lowerdir={}", list.join(":"));
    let questions = [0, 1, 2, 3, 4].map(|index| format!("read /over/file-{index}"));
    let words = questions.each_ref().map(String::as_str);
    let c = mounted(c, &[&lower]).asks(&words);
    let output = c.run().ok();
    for question in &questions {
        assert_eq!(output.answer(question), "x", "{question}");
    }
}
