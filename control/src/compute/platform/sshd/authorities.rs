//! The gateways' user CAs, as `user_ca.pub` names them.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use ssh_key::{Algorithm, PublicKey};

/// The current one, and the next or the last.
const MAX_AUTHORITIES: usize = 2;
/// Two RSA keys of 16,384 bits with long comments.
const MAX_FILE_BYTES: u64 = 16 * 1024;

/// Whose certificates are good, at least one. Its text is what OpenSSH's `TrustedUserCAKeys` takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserAuthorities(Vec<PublicKey>);

/// What is wrong with such a file, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {reason}")]
pub struct WrongLine {
    /// From 1.
    line: usize,
    /// From 1, in characters.
    column: usize,
    reason: String,
}

/// A file that names no authorities.
#[derive(Debug, thiserror::Error)]
pub enum AuthoritiesError {
    #[error("{} cannot be read: {error}", path.display())]
    Unreadable { path: PathBuf, error: io::Error },
    #[error("{}: {error}", path.display())]
    Wrong { path: PathBuf, error: WrongLine },
}

impl UserAuthorities {
    /// Reads a file such as a gateway writes.
    ///
    /// # Errors
    /// It cannot be read, or something in it is no public key.
    pub fn load(path: &Path) -> Result<Self, AuthoritiesError> {
        let unreadable = |error| AuthoritiesError::Unreadable { path: path.to_owned(), error };
        let mut text = String::new();
        let file = File::open(path).map_err(unreadable)?;
        file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).map_err(unreadable)?;
        if text.len() as u64 > MAX_FILE_BYTES {
            return Err(unreadable(io::Error::other(format!("it has more than {MAX_FILE_BYTES} bytes"))));
        }
        text.parse().map_err(|error| AuthoritiesError::Wrong { path: path.to_owned(), error })
    }
}

impl FromStr for UserAuthorities {
    type Err = WrongLine;

    fn from_str(text: &str) -> Result<Self, WrongLine> {
        let mut keys = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let wrong = |column: usize, reason: String| WrongLine { line: index + 1, column, reason };
            let indent = line.chars().take_while(|char| char.is_whitespace()).count();
            if line.trim().is_empty() || line.trim().starts_with('#') {
                continue;
            }
            let key = authority(line.trim()).map_err(|(column, reason)| wrong(indent + column, reason))?;
            if keys.len() == MAX_AUTHORITIES {
                let reason = "a third key: two are for the time in which one takes the place of the other".to_owned();
                return Err(wrong(indent + 1, reason));
            }
            keys.push(key);
        }
        if keys.is_empty() {
            let reason = "there is no key: it is the line of a gateway's user_ca.pub".to_owned();
            return Err(WrongLine { line: 1, column: 1, reason });
        }
        Ok(Self(keys))
    }
}

/// The key of one line, or the column and what is wrong there.
fn authority(line: &str) -> Result<PublicKey, (usize, String)> {
    let (kind, rest) = line.split_once(' ').unwrap_or((line, ""));
    if line.contains("PRIVATE KEY") {
        return Err((
            1,
            "this is a private key; its public half is in the file with the same name and .pub".to_owned(),
        ));
    }
    match kind.parse() {
        Ok(Algorithm::Ed25519 | Algorithm::Ecdsa { .. } | Algorithm::Rsa { .. }) => {}
        _ => return Err((1, format!("`{kind}` is no type of key that signs certificates, such as ssh-ed25519"))),
    }
    let base64 = kind.chars().count() + 1 + (rest.chars().count() - rest.trim_start().chars().count());
    PublicKey::from_openssh(line).map_err(|error| (base64 + 1, format!("this is no {kind} key: {error}")))
}

impl fmt::Display for UserAuthorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|key| writeln!(f, "{}", key.to_openssh().map_err(|_| fmt::Error)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ one";
    const OTHER: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti other";

    fn wrong(text: &str) -> (usize, usize, String) {
        let WrongLine { line, column, reason } = text.parse::<UserAuthorities>().expect_err(text);
        (line, column, reason)
    }

    #[test]
    fn one_or_two_keys_are_read_and_told_as_they_were() {
        for keys in [vec![ONE], vec![ONE, OTHER]] {
            let text = format!("# of the gateways\n\n{}\n", keys.join("\n"));
            let authorities: UserAuthorities = text.parse().expect("keys");
            assert_eq!(authorities.to_string(), format!("{}\n", keys.join("\n")));
        }
    }

    #[test]
    fn what_is_no_key_is_told_with_its_place() {
        assert_eq!(wrong("").0, 1);
        assert_eq!((wrong("# nothing\n").0, wrong("# nothing\n").1), (1, 1));
        let (line, column, reason) = wrong(&format!("{ONE}\n  cert-authority {OTHER}"));
        assert!((line, column) == (2, 3) && reason.contains("cert-authority"), "{line}:{column} {reason}");
        let (line, column, reason) = wrong("ssh-ed25519 AAAA");
        assert!((line, column) == (1, 13) && reason.contains("ssh-ed25519"), "{line}:{column} {reason}");
        let (line, column, _) = wrong(&format!("{ONE}\n{OTHER}\n{ONE}"));
        assert_eq!((line, column), (3, 1));
        assert!(wrong("-----BEGIN OPENSSH PRIVATE KEY-----").2.contains(".pub"));
        assert!(wrong("ssh-ed25519-cert-v01@openssh.com AAAA").2.contains("no type of key"));
    }

    #[test]
    fn a_file_is_named_in_its_errors() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("user_ca.pub");
        let error = UserAuthorities::load(&path).expect_err("nothing there").to_string();
        assert!(error.contains("user_ca.pub cannot be read"), "{error}");
        std::fs::write(&path, "nonsense").expect("written");
        let error = UserAuthorities::load(&path).expect_err("nonsense").to_string();
        assert!(error.contains("user_ca.pub: line 1, column 1: "), "{error}");
        std::fs::write(&path, vec![b'#'; 17_000]).expect("written");
        assert!(UserAuthorities::load(&path).expect_err("long").to_string().contains("more than 16384 bytes"));
        std::fs::write(&path, ONE).expect("written");
        UserAuthorities::load(&path).expect("an authority");
    }
}
