//! JSON that engines write, and the records that are kept of it: config.json, process.json, new limits, the state.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;

use super::{assert_printable, callers};
use cofferdam::bundle::{self, Bundle};
use cofferdam::plan::exec::{self, Changes, Saved};
use cofferdam::plan::rdt::Groups;
use cofferdam::plan::{Plan, gvariant, systemd, update};
use cofferdam::state::record::last_record;
use cofferdam::sys::clone;

/// Parsed, judged, planned for three callers. The plan has no chance in it, and its text nothing for a terminal.
pub fn config(data: &[u8]) {
    let texts = plans(data);
    assert_eq!(texts, plans(data), "planned twice");
    texts.iter().for_each(|text| assert_printable(text));
}

fn plans(data: &[u8]) -> Vec<String> {
    let Ok(parsed) = bundle::parse(data) else {
        return Vec::new();
    };
    let Ok(bundle) = Bundle::of_parsed(PathBuf::from("/bundle"), parsed) else {
        return Vec::new();
    };
    let planned = |(host, flags)| {
        let plan = Plan::create(&bundle, &host, &flags).ok()?;
        if let Some(unit) = plan.cgroup.as_ref().and_then(|cgroup| cgroup.unit.as_ref()) {
            let properties = unit.properties.iter();
            properties.for_each(|property| drop(property.value.signature()));
        }
        Some(plan.to_string())
    };
    callers().into_iter().filter_map(planned).collect()
}

/// The record of a container's config, and what is asked for: as a file, or else by flags.
#[derive(Deserialize)]
struct Exec {
    saved: Saved,
    file: Option<Value>,
    #[serde(default)]
    words: Vec<String>,
}

/// No process gains what no_new_privs of the container keeps from it.
pub fn process(data: &[u8]) {
    let Ok(asked) = serde_json::from_slice::<Exec>(data) else {
        return;
    };
    let process = match asked.file {
        Some(file) => exec::of_file(&asked.saved.process, file),
        None => exec::of_changes(&asked.saved.process, changes(&asked.words)),
    };
    let Ok(process) = process else { return };
    let config = serde_json::json!({
        "ociVersion": "1.2.0",
        "process": process,
        "linux": asked.saved.linux,
    });
    let Ok(bundle) = Bundle::of_process(PathBuf::from("/bundle"), &config) else {
        return;
    };
    for (host, _) in callers() {
        let flags = exec::flags("c", 1, 1, &asked.saved);
        let Ok(plan) = Plan::exec(&bundle, &host, &flags, clone::NEWPID | clone::NEWUSER) else {
            continue;
        };
        assert_printable(&plan.to_string());
        let bound = asked.saved.process["noNewPrivileges"] == Value::Bool(true);
        assert!(plan.process.identity.no_new_privileges || !bound);
    }
}

/// The words are those of flags that take several, so that each is tried.
fn changes(words: &[String]) -> Changes {
    Changes {
        args: words.to_vec(),
        env: words.to_vec(),
        cwd: words.first().cloned(),
        user: (words.len() > 1).then_some((7, 7)),
        groups: (0..words.len() as u32 / 2).collect(),
        capabilities: words.iter().skip(2).cloned().collect(),
        no_new_privileges: words.len() > 4,
        label: words.get(3).cloned(),
        ..Changes::default()
    }
}

/// A record is found again after it was written, whatever stands before and behind it.
pub fn state(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    serde_json::from_str::<Saved>(&text).ok();
    serde_json::from_str::<Groups>(&text).ok();
    let id = text.split('"').find(|word| word.starts_with("c-"));
    let id = id.unwrap_or("c");
    // A file that JSON is changed in has no end of line.
    let records = format!("{text}\n");
    let Some(state) = last_record(&records, id) else {
        return;
    };
    let line = serde_json::to_string(&state).unwrap_or_default();
    let again = last_record(&format!("{text}\n{line}\n{{\"id\":\"{id}\"}}"), id);
    let again = again.map(|state| serde_json::to_string(&state).unwrap_or_default());
    assert_eq!(again, Some(line));
}

/// `asked` is what `update` is given, `now` what files of the cgroup say.
pub fn resources(data: &[u8]) {
    let Ok(Value::Object(document)) = serde_json::from_slice(data) else {
        return;
    };
    let now = |file: &str| Some(document.get("now")?.get(file)?.as_str()?.to_string());
    let Some(mut asked) = document
        .get("asked")
        .filter(|asked| asked.is_object())
        .cloned()
    else {
        return;
    };
    update::complete(&mut asked, now);
    let Ok(plan) = bundle::resources(&asked).and_then(|spec| update::changes(&spec, now)) else {
        return;
    };
    for setting in &plan.settings {
        let before = now(&setting.file).unwrap_or_default();
        update::undo(&setting.file, &setting.value, &before);
        assert!(!setting.file.contains('/'), "{}", setting.file);
    }
    let Ok(properties) = systemd::limits(&plan.settings) else {
        return;
    };
    let mut names: Vec<String> = properties.iter().map(name).collect();
    names.sort_unstable();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
    check_quota(&plan.settings, &properties);
}

/// Of a property, or of a device's part of it.
fn name(property: &systemd::Property) -> String {
    let gvariant::Value::Array(_, weights) = &property.value else {
        return property.name.clone();
    };
    let [gvariant::Value::Struct(weight)] = &weights[..] else {
        return property.name.clone();
    };
    let device = weight[0].to_string();
    let path = device.trim_matches('"').strip_prefix("/dev/block/");
    assert!(path.is_some_and(|path| !path.contains('/')), "{device}");
    format!("{} of {device}", property.name)
}

/// The last quota, in arithmetic without an end. systemd never gets less than was asked for.
fn check_quota(settings: &[cofferdam::plan::resources::Setting], properties: &[systemd::Property]) {
    let last = settings.iter().rfind(|setting| setting.file == "cpu.max");
    let share = properties
        .iter()
        .find(|property| property.name == "CPUQuotaPerSecUSec");
    let (Some(setting), Some(share)) = (last, share) else {
        return;
    };
    let numbers = setting.value.split_whitespace();
    let numbers: Vec<f64> = numbers.filter_map(|word| word.parse().ok()).collect();
    let share = match share.value {
        gvariant::Value::U64(share) => share as f64,
        _ => panic!("{share:?}"),
    };
    if let [quota, period] = numbers[..] {
        let asked = (quota * 1e6 / period).min(u64::MAX as f64);
        assert!(
            share >= asked * 0.999,
            "{}: {share} of {asked}",
            setting.value
        );
    }
}
