//! The way to a file through symlinks.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

/// Symlinks followed on the way to a file, as many as Linux follows.
const MAX_LINKS: usize = 40;

/// The names whose change can lead to other content: every symlink on the way, and the file.
pub(super) fn steps(path: &Path) -> Vec<PathBuf> {
    let mut steps = Vec::new();
    let mut links = 0;
    let mut here = PathBuf::new();
    let mut ahead = names(path);
    while let Some(name) = ahead.pop_front() {
        if name == ".." {
            here.pop();
            continue;
        }
        here.push(&name);
        match here.read_link() {
            // Where the way ends early, it may go on later.
            Err(error) if error.kind() == ErrorKind::NotFound => steps.push(here.clone()),
            Ok(target) if links < MAX_LINKS => {
                links += 1;
                steps.push(here.clone());
                here.pop();
                for name in names(&target).into_iter().rev() {
                    ahead.push_front(name);
                }
            }
            _ if ahead.is_empty() => steps.push(here.clone()),
            _ => {}
        }
    }
    steps
}

fn names(path: &Path) -> VecDeque<OsString> {
    path.components().filter(|part| *part != Component::CurDir).map(|part| part.as_os_str().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn finds_the_way() {
        let root = std::env::temp_dir().join(format!("edd-links-{}", std::process::id()));
        fs::create_dir_all(root.join("..1")).expect("the temporary directory takes directories");
        let root = fs::canonicalize(root).expect("the directory is there");
        let link = |target: &str, name: &str| symlink(target, root.join(name)).expect("a symlink");
        link("..1", "..data");
        link("./..data/routes.yaml", "mounted");
        link("loop", "loop");
        let check = |name: &str, want: &[&str]| {
            let want: Vec<_> = want.iter().map(|step| root.join(step)).collect();
            assert_eq!(steps(&root.join(name)), want, "{name}");
        };
        check("routes.yaml", &["routes.yaml"]);
        check("a/../routes.yaml", &["a", "routes.yaml"]);
        check("a/routes.yaml", &["a", "a/routes.yaml"]);
        check("mounted", &["mounted", "..data", "..1/routes.yaml"]);
        check("loop", &["loop"; MAX_LINKS + 1]);
        fs::remove_dir_all(root).expect("the directory is there");
    }
}
