//! The routes file: read, parsed whole, and taken or refused as one.

use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::build;
use super::decode::{Context, FromNode};
use super::diagnostic::{Diagnostic, Severity, SourceText};
use super::lint;
use super::node;
use super::written::FileForm;
use crate::route::Route;

/// Largest routes file, in bytes.
pub const MAX_FILE_BYTES: usize = 16 * 1024 * 1024;

/// A file that was taken.
#[derive(Debug, PartialEq, Eq)]
pub struct Parsed {
    pub routes: Vec<Route>,
    /// What is legal and still a mistake, in the order of the file.
    pub warnings: Vec<Diagnostic>,
}

/// Why a file was not taken.
#[derive(Debug)]
pub enum LoadError {
    /// It cannot be read.
    Io { path: PathBuf, cause: io::Error },
    /// It is read, and wrong.
    Invalid(Vec<Diagnostic>),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { path, cause } => write!(f, "cannot read the routes from {}: {cause}", path.display()),
            Self::Invalid(errors) => {
                let rendered: Vec<_> = errors.iter().map(ToString::to_string).collect();
                f.write_str(&rendered.join("\n\n"))
            }
        }
    }
}

impl std::error::Error for LoadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { cause, .. } => Some(cause),
            Self::Invalid(_) => None,
        }
    }
}

/// Parses the routes in `text`. `origin` names the file in diagnostics; relative file names within
/// it start from its directory.
///
/// # Errors
/// Every error that can be told, up to [`super::diagnostic::MAX_ERRORS`]; no route is taken then.
pub fn parse(text: &str, origin: &str) -> Result<Parsed, Vec<Diagnostic>> {
    // YAML lets a byte order mark begin a stream; editors on Windows write one.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.len() > MAX_FILE_BYTES {
        return Err(vec![too_big(origin)]);
    }
    let mut cx = Context::new(SourceText::new(origin, text));
    let mut declared = Vec::new();
    if let Some(root) = node::read(&mut cx) {
        if let Some(form) = FileForm::from_node(&root, &mut cx) {
            declared = build::build(form, &root.head(), &mut cx);
        }
    } else {
        cx.error_if_none(&(0..0), "the file is empty", "begin it with `routes:`, or write `routes: []` for none");
    }
    lint::lint(&declared, &mut cx);
    let warnings = cx.finish()?;
    Ok(Parsed { routes: declared.into_iter().map(|declared| declared.route).collect(), warnings })
}

/// Reads and parses the routes file at `path`.
///
/// # Errors
/// When it cannot be read, is too big, is not UTF-8, or is wrong.
pub fn load(path: &Path) -> Result<Parsed, LoadError> {
    let text = read(path)?;
    parse(&text, &path.to_string_lossy()).map_err(LoadError::Invalid)
}

/// Reads the routes file at `path`, without looking at what it says.
pub fn read(path: &Path) -> Result<String, LoadError> {
    let failed = |cause| LoadError::Io { path: path.to_owned(), cause };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    let origin = path.to_string_lossy();
    if bytes.len() > MAX_FILE_BYTES {
        return Err(LoadError::Invalid(vec![too_big(&origin)]));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(error.as_bytes());
        let found = SourceText::new(&origin, &text).diagnostic(
            Severity::Error,
            &(at..at + 1),
            "the file is not UTF-8",
            Some("save it as UTF-8"),
        );
        LoadError::Invalid(vec![found])
    })
}

fn too_big(origin: &str) -> Diagnostic {
    let message = format!("the file has more than {} MiB", MAX_FILE_BYTES / 1024 / 1024);
    SourceText::new(origin, "").diagnostic(
        Severity::Error,
        &(0..0),
        &message,
        Some("split the routes over several gateways"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::{Action, Authority, HostPattern, PathPrefix, Protocol, Source, Target};
    use proptest::prelude::*;

    const SEED: &str = include_str!("cases/seed.yaml");

    fn refused(text: &str) -> Vec<Diagnostic> {
        parse(text, "routes.yaml").expect_err(text)
    }

    fn check(text: &str, line: usize, column: usize, message: &str) {
        let errors = refused(text);
        let [error] = errors.as_slice() else { panic!("{errors:?}") };
        assert_eq!((error.line, error.column, error.message.as_str()), (line, column, message));
        assert!(error.hint.is_some(), "{error}");
    }

    #[test]
    fn reads_the_seed_exactly() {
        let route = |host: &str, path: &str, target: &str, strip_prefix| {
            let targets = vec![Target { authority: Authority::parse(target).expect("a target"), weight: 1 }];
            let action = Action::Proxy { targets, protocol: Protocol::H1 };
            let (host, path) = (HostPattern::parse(host).expect("a host"), PathPrefix::parse(path).expect("a path"));
            Route { strip_prefix, ..Route::new(host, path, action, Source::File) }
        };
        let routes = vec![
            route("cloud-api.eddisonso.com", "/compute", "edd-compute:80", false),
            route("cloud-api.eddisonso.com", "/sse/cluster-info", "cluster-monitor:80", true),
            route("cloud.eddisonso.com", "/", "simple-file-share-frontend:80", false),
        ];
        assert_eq!(parse(SEED, "routes.yaml"), Ok(Parsed { routes, warnings: Vec::new() }));
    }

    #[test]
    fn serves_the_example_without_a_warning() {
        let example = parse(include_str!("../../../routes.yaml"), "routes.yaml").expect("the example is right");
        assert_eq!(example.warnings, []);
        assert!(example.routes.len() >= 4);
    }

    #[test]
    fn takes_what_windows_writes() {
        let windows = format!("\u{feff}{}", SEED.replace('\n', "\r\n"));
        assert_eq!(parse(&windows, "routes.yaml"), parse(SEED, "routes.yaml"));
        check("\u{feff}route: []\r\n", 1, 1, "unknown key `route`");
        check("\u{feff}routes:\r\n  - hosts: a\r\n    target: b:80\r\n", 2, 5, "unknown key `hosts`");
    }

    #[test]
    fn names_characters_that_nobody_sees() {
        for (text, line, column) in [
            ("routes:\n\t- target: a:80\n", 2, 1),
            ("routes:\n  - target: a:80\n\tpath: /\n", 3, 1),
            ("routes:\n  - host: a\n    \ttarget: b:80\n", 3, 5),
        ] {
            let error = &refused(text)[0];
            assert_eq!((error.line, error.column), (line, column), "{error}");
            assert_eq!(error.hint.as_deref(), Some("indent with spaces; YAML takes no tabs"));
        }
        check("routes:\n  - host: a\u{1}b\n", 2, 12, "the control character U+0001 stands here");
        assert!(!refused("routes:\n  - host: \"\\e[2J\"\n")[0].to_string().contains('\x1b'));
    }

    #[test]
    fn finds_files_beside_the_routes() {
        let text = "routes: [{target: 'https://a:443', tls: {ca_file: x/ca.pem}, client_cert: {ca_file: /etc/c.pem}}]";
        let parsed = parse(text, "/srv/edd/routes.yaml").expect("the route is right");
        let Action::Proxy { protocol: Protocol::Https(tls), .. } = &parsed.routes[0].action else { panic!() };
        assert_eq!(tls.ca_file.as_deref(), Some(Path::new("/srv/edd/x/ca.pem")));
        assert_eq!(parsed.routes[0].client_auth.as_ref().map(|c| c.ca_file.as_path()), Some(Path::new("/etc/c.pem")));
    }

    #[test]
    fn bounds_what_it_takes() {
        check(&" ".repeat(MAX_FILE_BYTES + 1), 1, 1, "the file has more than 16 MiB");
        let many = "routes:\n".to_owned() + &"- {}\n".repeat(100_001);
        check(&many, 100_002, 3, "the list has 100001 items");
        let wrong = "routes:\n".to_owned() + &"- {x: y}\n".repeat(1000);
        assert_eq!(refused(&wrong).len(), super::super::diagnostic::MAX_ERRORS);
    }

    #[test]
    fn defuses_alias_bombs() {
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
            bomb.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
        }
        let errors = refused(&bomb);
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert_eq!(errors[0].message, "the file holds more than 2000000 values, aliases written out");
    }

    /// A file of its own, removed when the test ends.
    fn on_disk(name: &str, bytes: &[u8]) -> Result<Parsed, LoadError> {
        let path = std::env::temp_dir().join(format!("edd-file-{}-{name}", std::process::id()));
        std::fs::write(&path, bytes).expect("the temporary directory takes files");
        let loaded = load(&path);
        std::fs::remove_file(&path).expect("the file was just written");
        loaded
    }

    #[test]
    fn loads_from_disk() {
        assert_eq!(on_disk("seed", SEED.as_bytes()).expect("the seed is right").routes.len(), 3);
        let Err(LoadError::Invalid(errors)) = on_disk("latin1", b"routes:\n  # caf\xe9\n") else { panic!() };
        assert_eq!((errors[0].line, errors[0].column), (2, 8));
        assert_eq!(errors[0].message, "the file is not UTF-8");
        let Err(LoadError::Invalid(errors)) = on_disk("big", &vec![b' '; MAX_FILE_BYTES + 1]) else { panic!() };
        assert_eq!(errors[0].message, "the file has more than 16 MiB");
        let error = load(Path::new("/nowhere/routes.yaml")).expect_err("there is no such file");
        assert_eq!(
            error.to_string(),
            "cannot read the routes from /nowhere/routes.yaml: No such file or directory (os error 2)"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn never_panics_on_any_text(text in "\\PC{0,80}") {
            explains_or_takes(&text);
        }

        #[test]
        fn never_panics_on_yaml_like_text(text in "(routes:\n)?([-:{}\\[\\]&*!|>'\"%@#,?~<\t\r\n a]|host: |target: |\\*a|&a|<<: ){0,40}") {
            explains_or_takes(&text);
        }

        #[test]
        fn never_panics_on_a_damaged_file(
            from in 0..SEED.len(), len in 0..40usize, patch in "([-:{}\\[\\]&*!|>'\"%\t\r\n ]|\\PC){0,8}",
        ) {
            let to = (from + len).min(SEED.len());
            if SEED.is_char_boundary(from) && SEED.is_char_boundary(to) {
                explains_or_takes(&format!("{}{patch}{}", &SEED[..from], &SEED[to..]));
            }
        }
    }

    fn explains_or_takes(text: &str) {
        match parse(text, "f") {
            Ok(parsed) => assert!(parsed.warnings.iter().all(|warning| warning.severity == Severity::Warning)),
            Err(errors) => {
                assert!(!errors.is_empty(), "refused without a reason");
                for error in errors {
                    assert!(error.hint.is_some() && error.line > 0 && error.column > 0, "{error:?}");
                    let rendered = error.render(false);
                    assert!(rendered.lines().count() == 6 && rendered.contains('^'), "{rendered}");
                }
            }
        }
    }
}
