//! The configuration file: the variables of the environment, one a line, as systemd's
//! `EnvironmentFile` and `docker --env-file` read it too.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::ops::Range;
use std::path::{Path, PathBuf};

use clap::{Arg, Command};
use edd_gateway::sources::Diagnostic;

use crate::exit::Failure;
use crate::routes::render;

/// Read if it is there and no other file is named.
const DEFAULT: &str = "edd.env";
/// Larger files are refused, in bytes.
const MAX_FILE_BYTES: u64 = 64 * 1024;
/// Names that no flag stands for yet.
const OTHER_NAMES: [&str; 1] = ["EDD_SSH_LISTEN"];

/// A parsed file.
#[derive(Debug, PartialEq, Eq)]
pub struct ConfigFile {
    path: PathBuf,
    text: String,
    settings: BTreeMap<String, Setting>,
}

/// One line of the file.
#[derive(Debug, PartialEq, Eq)]
struct Setting {
    value: String,
    /// Where name and value stand, in bytes of the text.
    name_span: Range<usize>,
    value_span: Range<usize>,
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
        Self::parse(path, text).map(Some)
    }

    fn parse(path: PathBuf, text: String) -> Result<Self, Failure> {
        let mut settings = BTreeMap::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let Some((name, value)) = line.split_once('=') else {
                let message = format!("`{line}` is no setting");
                return Err(invalid(&path, &text, &span(&text, line), &message, "write it as `NAME=value`"));
            };
            let (name, value) = (name.trim_end(), unquote(value.trim_start()));
            let setting =
                Setting { value: value.to_owned(), name_span: span(&text, name), value_span: span(&text, value) };
            if settings.insert(name.to_owned(), setting).is_some() {
                let message = format!("`{name}` is set twice");
                return Err(invalid(&path, &text, &span(&text, name), &message, "remove one of the two"));
            }
        }
        Ok(Self { path, text, settings })
    }

    /// Makes the file's values the defaults of the flags that they stand for.
    pub fn apply(self, command: Command) -> Result<Command, Failure> {
        let mut known: BTreeSet<String> = OTHER_NAMES.iter().map(|name| (*name).to_owned()).collect();
        let command = self.apply_to(command, &mut known)?;
        for (name, setting) in &self.settings {
            if !known.contains(name) {
                let near = known.iter().min_by_key(|known| strsim::osa_distance(known, name));
                let hint = near.map(|near| format!("did you mean `{near}`?")).unwrap_or_default();
                return Err(self.invalid(&setting.name_span, &format!("unknown setting `{name}`"), &hint));
            }
        }
        Ok(command)
    }

    fn apply_to(&self, mut command: Command, known: &mut BTreeSet<String>) -> Result<Command, Failure> {
        let flags: Vec<Arg> = command.get_arguments().filter(|arg| arg.get_env().is_some()).cloned().collect();
        for flag in flags {
            let name = flag.get_env().unwrap_or_default().to_string_lossy().into_owned();
            if let Some(setting) = self.settings.get(&name) {
                self.check(&name, setting, &flag)?;
                let value = clap::builder::OsStr::from(setting.value.clone());
                command = command.mut_arg(flag.get_id().clone(), |arg| arg.default_value(value));
            }
            known.insert(name);
        }
        let verbs: Vec<String> = command.get_subcommands().map(|verb| verb.get_name().to_owned()).collect();
        for verb in verbs {
            let applied = command.find_subcommand(&verb).cloned().map(|verb| self.apply_to(verb, known)).transpose()?;
            command = command.mut_subcommand(verb, |verb| applied.unwrap_or(verb));
        }
        Ok(command)
    }

    /// Has clap parse the value as it would on the command line, where its own error could not name the file.
    fn check(&self, name: &str, setting: &Setting, flag: &Arg) -> Result<(), Failure> {
        let argument = match flag.get_long() {
            Some(long) => format!("--{long}={}", setting.value),
            None => setting.value.clone(),
        };
        let probe = Command::new("edd").no_binary_name(true).arg(flag.clone());
        let Err(error) = probe.try_get_matches_from([argument]) else { return Ok(()) };
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        let message = format!("`{}` is no value for {name}{cause}", setting.value);
        let possible: Vec<_> =
            flag.get_possible_values().iter().map(|value| format!("`{}`", value.get_name())).collect();
        let hint = match possible.as_slice() {
            [] => "`edd gateway --help` tells what each setting takes".to_owned(),
            values => format!("write one of {}", values.join(", ")),
        };
        Err(self.invalid(&setting.value_span, &message, &hint))
    }

    fn invalid(&self, span: &Range<usize>, message: &str, hint: &str) -> Failure {
        invalid(&self.path, &self.text, span, message, hint)
    }
}

fn invalid(path: &Path, text: &str, span: &Range<usize>, message: &str, hint: &str) -> Failure {
    let path = path.display().to_string();
    let diagnostic = Diagnostic::error(&path, text, span, message, hint);
    Failure::config(format!("{path} is not valid\n{}", render(&[diagnostic])))
}

/// Where `part`, a slice of `text`, stands in it.
fn span(text: &str, part: &str) -> Range<usize> {
    let start = part.as_ptr().addr() - text.as_ptr().addr();
    start..start + part.len()
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
        let count = Arg::new("count").long("count").env("EDD_TEST_COUNT_OF_FILE").value_parser(clap::value_parser!(u8));
        let side = Arg::new("side").env("EDD_TEST_SIDE_OF_FILE").value_parser(["left", "right"]);
        Command::new("edd").subcommand(Command::new("gateway").args([flag, count, side]))
    }

    fn value(matches: &ArgMatches) -> &str {
        matches.subcommand().unwrap().1.get_one::<String>("http").unwrap()
    }

    fn file(text: &str) -> Result<ConfigFile, Failure> {
        ConfigFile::parse("edd.env".into(), text.to_owned())
    }

    #[test]
    fn a_flag_beats_the_file_and_the_file_beats_the_default() {
        let text = "# comment\n\nEDD_TEST_HTTP_LISTEN_OF_FILE = \"from file\"\nEDD_SSH_LISTEN=x\n";
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
        for (text, parts) in [
            ("\n nonsense", ["`nonsense` is no setting", "edd.env:2:2", "|  nonsense"]),
            ("A=1\nA=2", ["`A` is set twice", "edd.env:2:1", "remove one"]),
            (
                "EDD_TEST_HTTP_LISTEN_OF_FIL=x",
                ["unknown setting", "edd.env:1:1", "did you mean `EDD_TEST_HTTP_LISTEN_OF_FILE`"],
            ),
            (
                "\nEDD_TEST_COUNT_OF_FILE = 'x' ",
                ["`x` is no value for EDD_TEST_COUNT", "edd.env:2:27", "invalid digit"],
            ),
            ("EDD_TEST_SIDE_OF_FILE=up", ["`up` is no value", "edd.env:1:23", "write one of `left`, `right`"]),
        ] {
            let told = error(text);
            assert!(parts.iter().all(|part| told.contains(part)), "{told}");
        }
    }

    #[test]
    fn the_command_line_names_the_file() {
        let named = |arguments: &[&str]| named_by(arguments.iter().map(OsString::from));
        assert_eq!(named(&["gateway", "--config", "x"]), Some("x".into()));
        assert_eq!(named(&["--config=y", "up"]), Some("y".into()));
        assert_eq!(named(&["up"]), None);
    }
}
