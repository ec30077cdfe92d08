//! Whether a container can be as it is wanted.

use std::path::{Component, Path};

use super::{PlatformError, Spec};

/// A shell and the first process need this much.
const MIN_MEMORY_MB: u32 = 32;
const MIN_CPU_MILLIS: u32 = 10;
const MAX_MOUNTS: usize = 16;
const MAX_PATH_BYTES: usize = 255;
/// All variables together; the kernel takes 2 MiB with the arguments.
const MAX_ENVIRONMENT_BYTES: usize = 64 * 1024;
/// Where the platform or the image has its own.
const RESERVED: [&str; 12] =
    ["/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/proc", "/sbin", "/sys", "/usr"];

/// Says what is wrong with `spec`.
pub(super) fn check(spec: &Spec) -> Result<(), PlatformError> {
    let wrong = |what: String| Err(PlatformError::Impossible(what));
    if spec.memory_mb < MIN_MEMORY_MB {
        return wrong(format!("memory_mb is {}; a container needs at least {MIN_MEMORY_MB}", spec.memory_mb));
    }
    if spec.cpu_millis < MIN_CPU_MILLIS {
        return wrong(format!("cpu_millis is {}; a container needs at least {MIN_CPU_MILLIS}", spec.cpu_millis));
    }
    if spec.mount_paths.len() > MAX_MOUNTS {
        return wrong(format!("{} mount paths; at most {MAX_MOUNTS} are kept", spec.mount_paths.len()));
    }
    for (index, path) in spec.mount_paths.iter().enumerate() {
        if let Some(reason) = wrong_mount(path) {
            return wrong(format!("mount path {path:?} {reason}"));
        }
        if spec.mount_paths[..index].iter().any(|earlier| Path::new(earlier) == Path::new(path)) {
            return wrong(format!("mount path {path:?} is there twice"));
        }
    }
    let bytes: usize = spec.environment.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
    if bytes > MAX_ENVIRONMENT_BYTES {
        return wrong(format!("the environment has {bytes} bytes; at most {MAX_ENVIRONMENT_BYTES} are passed on"));
    }
    for (name, value) in &spec.environment {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return wrong(format!("{name:?} cannot be a variable of an environment"));
        }
    }
    Ok(())
}

fn wrong_mount(path: &str) -> Option<String> {
    let parsed = Path::new(path);
    if !parsed.is_absolute() {
        return Some("is not absolute".to_owned());
    }
    if path.len() > MAX_PATH_BYTES {
        return Some(format!("has {} bytes; at most {MAX_PATH_BYTES} are taken", path.len()));
    }
    if path.chars().any(char::is_control) {
        return Some("has a control character".to_owned());
    }
    // `components` passes over a `.` in the middle, which would make two names for one directory.
    if path.split('/').any(|part| part == "." || part == "..") {
        return Some("has a part that is `.` or `..`".to_owned());
    }
    if !parsed.components().any(|component| matches!(component, Component::Normal(_))) {
        return Some("is the whole container".to_owned());
    }
    let reserved = RESERVED.iter().find(|reserved| parsed.starts_with(reserved));
    reserved.map(|reserved| format!("is in {reserved}, which belongs to the image"))
}

#[cfg(test)]
mod tests {

    use super::*;

    fn spec() -> Spec {
        Spec {
            id: "c234567890".parse().expect("an id"),
            owner: "V1StGXR8_Z5jdHi6B-myT".parse().expect("an id"),
            name: "odd name; $(touch /tmp/x) \u{202e}\"'".to_owned(),
            image: "default".to_owned(),
            pull: Default::default(),
            memory_mb: 64,
            cpu_millis: 100,
            storage_gb: 1,
            mount_paths: vec!["/root".to_owned(), "/srv/data".to_owned()],
            environment: [("A".to_owned(), "b".to_owned())].into(),
        }
    }

    #[test]
    fn what_can_be_is_let_be() {
        check(&spec()).expect("a container");
    }

    #[test]
    fn what_cannot_be_is_named() {
        let paths = [
            ("relative", "not absolute"),
            ("", "not absolute"),
            ("/", "the whole container"),
            ("//", "the whole container"),
            ("/a/../../etc", "`..`"),
            ("/a/./b", "`.`"),
            ("/proc", "in /proc"),
            ("/proc/self", "in /proc"),
            ("//proc", "in /proc"),
            ("/usr/share", "in /usr"),
            ("/a\nb", "control character"),
            ("/root", "twice"),
            ("/root/", "twice"),
        ];
        for (path, reason) in paths {
            let mount_paths = vec!["/root".to_owned(), path.to_owned()];
            let error = check(&Spec { mount_paths, ..spec() }).expect_err(path).to_string();
            assert!(error.contains(reason), "{path}: {error}");
        }
        let long = vec![format!("/{}", "x".repeat(300))];
        let environment = |name: &str, value: &str| [(name.to_owned(), value.to_owned())].into();
        for (reason, spec) in [
            ("memory_mb is 31", Spec { memory_mb: 31, ..spec() }),
            ("cpu_millis is 0", Spec { cpu_millis: 0, ..spec() }),
            ("301 bytes", Spec { mount_paths: long, ..spec() }),
            ("17 mount paths", Spec { mount_paths: (0..17).map(|i| format!("/m{i}")).collect(), ..spec() }),
            ("variable", Spec { environment: environment("A=B", ""), ..spec() }),
            ("variable", Spec { environment: environment("", "x"), ..spec() }),
            ("variable", Spec { environment: environment("A", "\0"), ..spec() }),
            ("bytes", Spec { environment: environment("A", &"x".repeat(70_000)), ..spec() }),
        ] {
            let error = check(&spec).expect_err(reason).to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
