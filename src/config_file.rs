//! The configuration file: the variables of the environment, one a line, as systemd's
//! `EnvironmentFile` and `docker --env-file` read it too.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::Command;

use crate::exit::Failure;

/// Read if it is there and no other file is named.
const DEFAULT: &str = "edd.env";
/// Larger files are refused, in bytes.
const MAX_FILE_BYTES: u64 = 64 * 1024;
/// Names that no flag stands for: read elsewhere, or by what is to come.
const OTHER_NAMES: [&str; 2] = ["RUST_LOG", "EDD_SSH_LISTEN"];

/// A parsed file.
#[derive(Debug, PartialEq, Eq)]
pub struct ConfigFile {
    path: PathBuf,
    /// By name, with the line it stands on.
    values: BTreeMap<String, (String, usize)>,
}

impl ConfigFile {
    /// Finds the file that the command line, the environment or the directory names.
    pub fn find(arguments: impl Iterator<Item = OsString>) -> Result<Option<Self>, Failure> {
        let named = named_by(arguments).or_else(|| std::env::var_os("EDD_CONFIG").map(PathBuf::from));
        let path = match named {
            Some(path) => path,
            None if Path::new(DEFAULT).exists() => PathBuf::from(DEFAULT),
            None => return Ok(None),
        };
        let failed = |error: std::io::Error| Failure::config(format!("cannot read {}: {error}", path.display()));
        let metadata = std::fs::metadata(&path).map_err(failed)?;
        if metadata.len() > MAX_FILE_BYTES {
            return Err(Failure::config(format!("{} has more than {MAX_FILE_BYTES} bytes", path.display())));
        }
        let text = std::fs::read_to_string(&path).map_err(failed)?;
        Self::parse(path, &text).map(Some)
    }

    fn parse(path: PathBuf, text: &str) -> Result<Self, Failure> {
        let mut values = BTreeMap::new();
        for (index, line) in text.lines().enumerate() {
            let (line, number) = (line.trim(), index + 1);
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let at = format!("{}:{number}", path.display());
            let Some((name, value)) = line.split_once('=') else {
                return Err(Failure::config(format!("{at}: `{line}` is no `NAME=value`")));
            };
            let (name, value) = (name.trim(), unquote(value.trim()));
            if values.insert(name.to_owned(), (value.to_owned(), number)).is_some() {
                return Err(Failure::config(format!("{at}: `{name}` is set twice")));
            }
        }
        Ok(Self { path, values })
    }

    /// Makes the file's values the defaults of the flags that they stand for.
    pub fn apply(self, command: Command) -> Result<Command, Failure> {
        let mut known: BTreeSet<String> = OTHER_NAMES.iter().map(|name| (*name).to_owned()).collect();
        let command = apply(command, &self.values, &mut known);
        for (name, (_, line)) in &self.values {
            if !known.contains(name) {
                let near = known.iter().min_by_key(|known| strsim::osa_distance(known, name));
                let hint = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
                return Err(Failure::config(format!("{}:{line}: unknown setting `{name}`{hint}", self.path.display())));
            }
        }
        Ok(command)
    }
}

fn apply(mut command: Command, values: &BTreeMap<String, (String, usize)>, known: &mut BTreeSet<String>) -> Command {
    let settings: Vec<(String, String)> = command
        .get_arguments()
        .filter_map(|arg| Some((arg.get_id().to_string(), arg.get_env()?.to_string_lossy().into_owned())))
        .collect();
    for (id, name) in settings {
        if let Some((value, _)) = values.get(&name) {
            let value = clap::builder::OsStr::from(value.clone());
            command = command.mut_arg(id, |arg| arg.default_value(value));
        }
        known.insert(name);
    }
    let verbs: Vec<String> = command.get_subcommands().map(|verb| verb.get_name().to_owned()).collect();
    for verb in verbs {
        command = command.mut_subcommand(verb, |verb| apply(verb, values, known));
    }
    command
}

fn named_by(mut arguments: impl Iterator<Item = OsString>) -> Option<PathBuf> {
    while let Some(argument) = arguments.next() {
        let text = argument.to_string_lossy();
        if text == "--config" {
            return arguments.next().map(PathBuf::from);
        }
        if let Some(path) = text.strip_prefix("--config=") {
            return Some(PathBuf::from(path));
        }
    }
    None
}

fn unquote(value: &str) -> &str {
    for quote in ['"', '\''] {
        if let Some(inner) = value.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote)) {
            return inner;
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Arg, ArgMatches};

    fn command() -> Command {
        let flag = Arg::new("http").long("http").env("EDD_TEST_HTTP_LISTEN_OF_FILE").default_value("built-in");
        Command::new("edd").subcommand(Command::new("gateway").arg(flag))
    }

    fn value(matches: &ArgMatches) -> &str {
        matches.subcommand().unwrap().1.get_one::<String>("http").unwrap()
    }

    fn file(text: &str) -> Result<ConfigFile, Failure> {
        ConfigFile::parse("edd.env".into(), text)
    }

    #[test]
    fn a_flag_beats_the_file_and_the_file_beats_the_default() {
        let text = "# comment\n\nEDD_TEST_HTTP_LISTEN_OF_FILE = \"from file\"\nRUST_LOG=debug\n";
        let command = file(text).unwrap().apply(command()).unwrap();
        assert_eq!(value(&command.clone().get_matches_from(["edd", "gateway"])), "from file");
        assert_eq!(value(&command.get_matches_from(["edd", "gateway", "--http", "flag"])), "flag");
    }

    #[test]
    fn mistakes_are_told_with_their_line() {
        let error = |text: &str| match file(text).and_then(|file| file.apply(command())) {
            Ok(_) => panic!("{text} was taken"),
            Err(failure) => failure.to_string(),
        };
        assert!(error("\nnonsense").starts_with("edd.env:2: "));
        assert!(error("A=1\nA=2").contains("edd.env:2: `A` is set twice"));
        let unknown = error("EDD_TEST_HTTP_LISTEN_OF_FIL=x");
        assert!(unknown.contains("edd.env:1") && unknown.contains("did you mean `EDD_TEST_HTTP_LISTEN_OF_FILE`"));
    }

    #[test]
    fn the_command_line_names_the_file() {
        let named = |arguments: &[&str]| named_by(arguments.iter().map(OsString::from));
        assert_eq!(named(&["gateway", "--config", "x"]), Some("x".into()));
        assert_eq!(named(&["--config=y", "up"]), Some("y".into()));
        assert_eq!(named(&["up"]), None);
    }
}
