//! Secrets: given as they are, or in a file, as container platforms mount them.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::exit::Failure;

/// Larger files are no secrets, in bytes.
const MAX_SECRET_BYTES: u64 = 64 * 1024;

/// Text that reaches no log.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

/// The secret `name`, from itself or from the file; none if neither is given or it is empty, as compose files write it.
pub fn resolve(name: &str, value: Option<Secret>, file: Option<PathBuf>) -> Result<Option<Secret>, Failure> {
    let value = value.filter(|secret| !secret.0.is_empty());
    let file = file.filter(|file| !file.as_os_str().is_empty());
    match (value, file) {
        (Some(_), Some(_)) => Err(Failure::config(format!("{name} and {name}_FILE are both set; keep one of them"))),
        (value, None) => Ok(value),
        (None, Some(file)) => read(name, &file).map(Some),
    }
}

fn read(name: &str, file: &Path) -> Result<Secret, Failure> {
    let failed = |what: &dyn fmt::Display| Failure::config(format!("{name}_FILE: {}: {what}", file.display()));
    let size = std::fs::metadata(file).map_err(|error| failed(&error))?.len();
    if size > MAX_SECRET_BYTES {
        return Err(failed(&format!("more than {MAX_SECRET_BYTES} bytes are no secret")));
    }
    let text = std::fs::read_to_string(file).map_err(|error| failed(&error))?;
    // Editors end a file with a line break that nobody means.
    let text = text.strip_suffix('\n').map_or(&*text, |text| text.strip_suffix('\r').unwrap_or(text));
    if text.is_empty() {
        return Err(failed(&"the file is empty"));
    }
    Ok(Secret(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_comes_from_its_variable_or_its_file() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("key");
        std::fs::write(&file, "s3cret \r\n").expect("a file");
        let secret = |text: &str| Some(Secret::from(text.to_owned()));
        let resolve = |value, file: Option<&Path>| {
            resolve("KEY", value, file.map(Path::to_owned)).map_err(|failure| failure.to_string())
        };
        assert_eq!(resolve(secret("abc"), None), Ok(secret("abc")));
        assert_eq!(resolve(None, Some(&file)), Ok(secret("s3cret ")));
        assert_eq!((resolve(None, None), resolve(secret(""), Some(Path::new("")))), (Ok(None), Ok(None)));
        assert!(resolve(secret("abc"), Some(&file)).is_err_and(|error| error.contains("KEY_FILE")));
        assert!(resolve(None, Some(&dir.path().join("none"))).is_err_and(|error| error.contains("none")));
        std::fs::write(&file, "\n").expect("a file");
        assert!(resolve(None, Some(&file)).is_err_and(|error| error.contains("empty")));
        assert_eq!(format!("{:?}", Secret::from("abc".to_owned())), "Secret(…)");
    }
}
