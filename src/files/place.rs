//! `namespace/path`, as people write it.

use std::fmt;
use std::str::FromStr;

use crate::admin_client::encode;

/// A file or a folder in a namespace. What a path may be is for the share to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub namespace: String,
    /// Without slashes around it.
    pub path: String,
}

/// A namespace, or what is in one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anywhere {
    pub namespace: String,
    /// Empty: the namespace itself.
    pub path: String,
    /// Written with a slash at its end: what goes there keeps its name.
    pub is_folder: bool,
}

impl Anywhere {
    /// What is in the namespace; none: it is the namespace.
    pub fn place(&self) -> Option<Place> {
        let Self { namespace, path, .. } = self.clone();
        (!path.is_empty()).then_some(Place { namespace, path })
    }

    /// Where something called `name` goes that is sent here.
    pub fn receive(&self, name: &str) -> Place {
        match self.place() {
            Some(place) if !self.is_folder => place,
            _ => self.join(name),
        }
    }

    /// What is at `path` below.
    pub fn join(&self, path: &str) -> Place {
        let slash = if self.path.is_empty() { "" } else { "/" };
        Place { namespace: self.namespace.clone(), path: format!("{}{slash}{path}", self.path) }
    }
}

impl Place {
    /// The last part of the path.
    pub fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }

    /// Where the file is in the API.
    pub fn url(&self) -> String {
        let parts: Vec<String> = self.path.split('/').map(encode).collect();
        format!("/storage/{}/{}", encode(&self.namespace), parts.join("/"))
    }
}

impl FromStr for Anywhere {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (namespace, path) = text.split_once('/').unwrap_or((text, ""));
        if namespace.is_empty() || path.starts_with('/') {
            return Err("write it as namespace/path".to_owned());
        }
        let is_folder = text.ends_with('/');
        Ok(Self { namespace: namespace.to_owned(), path: path.trim_end_matches('/').to_owned(), is_folder })
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let place = text.parse::<Anywhere>()?.place();
        place.ok_or_else(|| "write it as namespace/path: this is a namespace alone".to_owned())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_namespace_and_perhaps_a_path() {
        let parse = |text: &str| text.parse::<Anywhere>().map(|it| (it.namespace, it.path, it.is_folder));
        let good = |namespace: &str, path: &str, folder| Ok((namespace.to_owned(), path.to_owned(), folder));
        assert_eq!(parse("docs"), good("docs", "", false));
        assert_eq!(parse("docs/"), good("docs", "", true));
        assert_eq!(parse("docs/a/b"), good("docs", "a/b", false));
        assert_eq!(parse("docs/a/"), good("docs", "a", true));
        for text in ["", "/", "/docs/a", "docs//a"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!("docs".parse::<Place>().is_err() && "docs/".parse::<Place>().is_err());
    }

    #[test]
    fn what_goes_into_a_folder_keeps_its_name() {
        let receive = |text: &str| text.parse::<Anywhere>().expect("a place").receive("x").to_string();
        assert_eq!(receive("docs"), "docs/x");
        assert_eq!(receive("docs/a/"), "docs/a/x");
        assert_eq!(receive("docs/a"), "docs/a");
    }

    #[test]
    fn a_url_keeps_every_character_of_a_name() {
        let place: Place = "docs/a b/%2e?#ü".parse().expect("a place");
        assert_eq!(place.url(), "/storage/docs/a%20b/%252e%3F%23%C3%BC");
        assert_eq!(place.name(), "%2e?#ü");
    }
}
