//! Makes configs, runs each on cofferdam, runc and crun, and compares what a probe sees inside.
//! run.sh calls it: once to run the workers, and each worker in namespaces and a cgroup of its own.

mod chance;
mod compare;
mod generate;
mod machine;
mod observe;
mod shrink;
mod worker;
mod workers;
mod world;

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

/// The words `NAME=VALUE` of the command line.
pub struct Arguments(BTreeMap<String, String>);

impl Arguments {
    pub fn text(&self, name: &str) -> Result<&str> {
        self.0
            .get(name)
            .map(String::as_str)
            .with_context(|| format!("{name}= is missing"))
    }

    pub fn number(&self, name: &str) -> Result<u64> {
        let text = self.text(name)?;
        text.parse()
            .with_context(|| format!("{name}={text} is no number"))
    }
}

fn main() -> ExitCode {
    match dispatch() {
        Ok(code) => code,
        Err(e) => {
            eprintln!("differential: {e:#}");
            ExitCode::from(2)
        }
    }
}

fn dispatch() -> Result<ExitCode> {
    let mut words = std::env::args().skip(1);
    let verb = words.next().unwrap_or_default();
    let pairs = words.map(|word| {
        let (name, value) = word
            .split_once('=')
            .with_context(|| format!("{word}: expected NAME=VALUE"))?;
        Ok((name.to_string(), value.to_string()))
    });
    let arguments = Arguments(pairs.collect::<Result<_>>()?);
    match verb.as_str() {
        "all" => workers::run(&arguments),
        "worker" => worker::run(&arguments),
        _ => bail!("{verb:?} is neither all nor worker; call run.sh"),
    }
}
