//! The table in docs/config.md: every field that the crate oci-spec knows has a row, every row names tests,
//! and every test that it names is there; so is every test that docs/security.md names.
//! The fields are read from the source of the crate, which has them as structures that rustfmt has formatted.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const TABLE: &str = "docs/config.md";

/// Not of a config: other documents, and platforms that a Linux runtime ignores as a whole.
const OTHER_FILES: [&str; 7] = [
    "features.rs",
    "solaris.rs",
    "state.rs",
    "test.rs",
    "vm.rs",
    "windows.rs",
    "zos.rs",
];

#[test]
fn every_field_of_the_spec_has_a_row() {
    let rows = fields_with_a_row();
    let fields = fields_of_the_spec();
    assert!(fields.len() > 200, "only {} fields found", fields.len());
    let missing: Vec<&String> = fields.difference(&rows).collect();
    assert!(missing.is_empty(), "{TABLE} has no row for {missing:#?}");
}

#[test]
fn every_test_of_a_row_exists() {
    let tests = tests_of_this_repository();
    for (line, row) in rows() {
        let cells: Vec<&str> = row.split(" | ").collect();
        assert_eq!(cells.len(), 3, "{TABLE}:{line}: three cells: {row}");
        let named: Vec<&str> = quoted(cells[2]).collect();
        assert!(!named.is_empty(), "{TABLE}:{line}: names no test: {row}");
        for name in named {
            assert!(tests.contains(name), "{TABLE}:{line}: no test `{name}`");
        }
    }
}

#[test]
fn every_test_that_the_page_on_security_names_exists() {
    let text = fs::read_to_string(repository().join("docs/security.md")).unwrap();
    let tests = tests_of_this_repository();
    let named: Vec<&str> = quoted(&text).filter(|name| name.contains("::")).collect();
    assert!(named.len() > 100, "only {} names found", named.len());
    for name in named {
        assert!(tests.contains(name), "docs/security.md: no test `{name}`");
    }
}

/// Rows of the tables whose first cell is a field: line number and text without the outer bars.
fn rows() -> Vec<(usize, String)> {
    let text = fs::read_to_string(repository().join(TABLE)).unwrap();
    let row = |line: &str| {
        let inner = line.strip_prefix("| `")?.strip_suffix(" |")?;
        Some(format!("`{inner}"))
    };
    let numbered = text.lines().zip(1..);
    numbered
        .filter_map(|(line, number)| Some((number, row(line)?)))
        .collect()
}

fn fields_with_a_row() -> BTreeSet<String> {
    let rows = rows();
    let cells = rows.iter().filter_map(|(_, row)| row.split(" | ").next());
    let names: Vec<&str> = cells.flat_map(quoted).collect();
    names.into_iter().flat_map(expand).collect()
}

/// What stands between backquotes.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// `a.{b,c}` -> `a.b`, `a.c`
fn expand(name: &str) -> Vec<String> {
    let Some((before, rest)) = name.split_once(".{") else {
        return vec![name.to_string()];
    };
    let (inner, after) = rest.split_once('}').expect(name);
    let each = inner
        .split(',')
        .map(|word| format!("{before}.{word}{after}"));
    each.flat_map(|name| expand(&name)).collect()
}

#[test]
fn braces_stand_for_all_that_they_hold() {
    assert_eq!(expand("a.b[]"), ["a.b[]"]);
    assert_eq!(
        expand("a.{b,c}[].{d,e}"),
        ["a.b[].d", "a.b[].e", "a.c[].d", "a.c[].e"]
    );
}

/// `module::name` of every function with the attribute, below tests/main and in the program.
fn tests_of_this_repository() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (folder, below) in [("tests/main", ""), ("src", "")] {
        collect(&repository().join(folder), below, &mut found);
    }
    found
}

fn collect(folder: &Path, module: &str, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        let stem = path.file_stem().unwrap().to_str().unwrap();
        let name = match stem {
            "mod" => module.to_string(),
            _ => format!("{module}{stem}::"),
        };
        if path.is_dir() {
            collect(&path, &name, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = if stem == "mod" { module } else { &name };
            tests_of_file(&fs::read_to_string(&path).unwrap(), name, found);
        }
    }
}

fn tests_of_file(text: &str, module: &str, found: &mut BTreeSet<String>) {
    let mut marked = false;
    for line in text.lines().map(str::trim) {
        let name = line
            .strip_prefix("fn ")
            .and_then(|rest| rest.split('(').next());
        if let (true, Some(name)) = (marked, name) {
            found.insert(format!("{module}{name}"));
        }
        marked = line == "#[test]" || (marked && line.starts_with("#["));
    }
}

/// The name and type of each field of a structure, by the structure's name.
type Structures = BTreeMap<String, Vec<(String, String)>>;

fn fields_of_the_spec() -> BTreeSet<String> {
    let mut structures = Structures::new();
    for entry in fs::read_dir(source_of_the_spec()).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        if name.ends_with(".rs") && !OTHER_FILES.contains(&name.as_str()) {
            read_structures(&fs::read_to_string(entry.path()).unwrap(), &mut structures);
        }
    }
    let mut fields = BTreeSet::new();
    walk(&structures, "Spec", "", &mut fields);
    fields
}

fn source_of_the_spec() -> PathBuf {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline"])
        // Without it cargo wants crates of platforms that nothing here is built for.
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(repository())
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    let packages = metadata["packages"].as_array().unwrap();
    let spec = packages
        .iter()
        .find(|package| package["name"] == "oci-spec");
    let manifest = Path::new(spec.unwrap()["manifest_path"].as_str().unwrap());
    manifest.with_file_name("src").join("runtime")
}

fn read_structures(text: &str, structures: &mut Structures) {
    let mut camel_case = false;
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        camel_case |= line.contains("rename_all = \"camelCase\"");
        let name = line
            .strip_prefix("pub struct ")
            .and_then(|rest| rest.strip_suffix(" {"));
        if let Some(name) = name {
            let body: Vec<&str> = lines.by_ref().take_while(|line| *line != "}").collect();
            structures.insert(name.to_string(), read_fields(&body, camel_case));
        }
        camel_case &= line != "}" && name.is_none();
    }
}

fn read_fields(body: &[&str], camel_case: bool) -> Vec<(String, String)> {
    let mut fields = Vec::new();
    let mut renamed = None;
    for line in body.iter().map(|line| line.trim()) {
        if let Some((_, rest)) = line.split_once("rename = \"") {
            renamed = rest.split('"').next().map(str::to_string);
        }
        let declared = line
            .strip_suffix(',')
            .and_then(|line| line.split_once(": "));
        let Some((name, kind)) = declared.filter(|_| !line.starts_with(['#', '/'])) else {
            continue;
        };
        let name = name.trim_start_matches("pub ").trim_start_matches("r#");
        let by_rule = if camel_case {
            in_camel_case(name)
        } else {
            name.to_string()
        };
        fields.push((renamed.take().unwrap_or(by_rule), kind.to_string()));
    }
    fields
}

fn in_camel_case(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_string();
    words.fold(first, |all, word| {
        all + &word[..1].to_uppercase() + &word[1..]
    })
}

/// Adds the paths of a structure's fields, with `[]` behind a list and `{}` behind a map.
fn walk(structures: &Structures, name: &str, path: &str, fields: &mut BTreeSet<String>) {
    for (field, kind) in &structures[name] {
        let kind = within(kind, "Option<").unwrap_or(kind);
        let (kind, mark) = match (within(kind, "Vec<"), within(kind, "HashMap<String, ")) {
            (Some(item), _) => (item, "[]"),
            (_, Some(value)) => (value, "{}"),
            _ => (kind, ""),
        };
        let path = format!("{path}{field}{mark}");
        if structures.contains_key(kind) {
            walk(structures, kind, &format!("{path}."), fields);
        }
        fields.insert(path);
    }
}

fn within<'a>(kind: &'a str, outer: &str) -> Option<&'a str> {
    kind.strip_prefix(outer)?.strip_suffix('>')
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
