//! `features` is the same document for everybody, whatever the host is like; `cli` tests what is in it.

use crate::check::{become_nobody, copy_program, cover};
use crate::support::{Bundle, Call};

fn call(c: &Bundle) -> Call {
    let program = c.dir.join("cofferdam");
    copy_program(&program);
    Call::new(&c.dir, vec!["--root=/proc/nowhere", "features"]).program(&program)
}

#[test]
fn the_features_do_not_depend_on_who_asks_and_where() {
    let c = bundle!();
    let here = call(&c).finish().ok().silent().stdout();
    let nobody = call(&c).setup(become_nobody);
    assert_eq!(nobody.finish().ok().silent().stdout(), here);
    let bare = call(&c).setup(|| cover(c"/proc").and_then(|()| cover(c"/sys")));
    assert_eq!(bare.finish().ok().silent().stdout(), here);
    let bare = call(&c).through_shell("unset PATH; cd /; exec \"$0\" \"$@\"");
    assert_eq!(bare.finish().ok().silent().stdout(), here);
    let session = call(&c)
        .env("XDG_RUNTIME_DIR", "/nowhere")
        .setup(become_nobody);
    assert_eq!(session.finish().ok().silent().stdout(), here);
}

#[test]
fn the_document_is_indented_and_ends_with_a_line() {
    let c = bundle!();
    let text = call(&c).finish().ok().stdout();
    assert!(
        text.starts_with("{\n  \"") && text.ends_with("\n}\n"),
        "{text}"
    );
}
