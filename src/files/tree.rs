//! Folders of this machine.

use std::fs;
use std::path::{Component, Path, PathBuf};

use super::progress::Progress;
use super::upload::name;
use crate::exit::{Code, Failure};

/// A file below a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    pub file: PathBuf,
    /// Below the folder, with `/`.
    pub path: String,
    pub size: u64,
}

/// All files below `folder`, by name. What is neither file nor folder is left out, and it is said.
pub fn leaves(folder: &Path, progress: &Progress) -> Result<Vec<Leaf>, Failure> {
    let mut found = Vec::new();
    walk(folder, "", progress, &mut found)?;
    Ok(found)
}

fn walk(folder: &Path, above: &str, progress: &Progress, found: &mut Vec<Leaf>) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::new(Code::Failure, format!("{}: {error}", folder.display()));
    let entries: Result<Vec<_>, _> = fs::read_dir(folder).map_err(failed)?.collect();
    let mut entries = entries.map_err(failed)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (file, about) = (entry.path(), entry.metadata().map_err(failed)?);
        let path = format!("{above}{}", name(&file)?);
        if about.is_dir() {
            walk(&file, &format!("{path}/"), progress, found)?;
        } else if about.is_file() {
            found.push(Leaf { file, path, size: about.len() });
        } else {
            progress.say(&format!("left out, for it is neither a file nor a folder: {}", file.display()));
        }
    }
    Ok(())
}

/// Where `path`, which somebody else chose, is below `folder`. None: it would be somewhere else.
pub fn below(folder: &Path, path: &str) -> Option<PathBuf> {
    let relative = Path::new(path);
    let is_plain = relative.components().all(|part| matches!(part, Component::Normal(_)));
    (is_plain && !path.is_empty() && !path.contains('\0')).then(|| folder.join(relative))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_left_out_and_files_sorted() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |path: &str| folder.path().join(path);
        fs::create_dir_all(at("b/c")).expect("folders");
        for (path, text) in [("b/c/two", "22"), ("a", "1"), ("b/one", "")] {
            fs::write(at(path), text).expect("a file");
        }
        std::os::unix::fs::symlink("/etc/passwd", at("link")).expect("a link");
        std::os::unix::fs::symlink(folder.path(), at("b/loop")).expect("a link");
        let leaves = leaves(folder.path(), &Progress::new(None)).expect("files");
        let found: Vec<_> = leaves.iter().map(|leaf| (leaf.path.as_str(), leaf.size)).collect();
        assert_eq!(found, [("a", 1), ("b/c/two", 2), ("b/one", 0)]);
    }

    #[test]
    fn nothing_is_written_outside_of_its_folder() {
        let folder = Path::new("/here");
        assert_eq!(below(folder, "a/b c"), Some(PathBuf::from("/here/a/b c")));
        for path in ["", "/etc/passwd", "../x", "a/../../x", "a\0b", "."] {
            assert_eq!(below(folder, path), None, "{path:?}");
        }
    }
}
