//! What a path of WebDAV leads to.

use dav_server::davpath::DavPath;

use super::PREFIX;
use crate::sfs::error::SfsError;
use crate::sfs::model::Invalid;
use crate::sfs::service::Place;

/// The list of namespaces, a namespace, or what is in one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::sfs) enum Spot {
    Root,
    /// By its name as it was asked for, which may be none that a namespace can have.
    Namespace(String),
    Entry(Place),
}

impl Spot {
    /// # Errors
    /// No file can have the path.
    pub(super) fn of(path: &DavPath) -> Result<Self, SfsError> {
        let text = std::str::from_utf8(path.as_bytes());
        let text = text.map_err(|_| Invalid::new("path", "UTF-8, percent-encoded"))?;
        Self::parse(text)
    }

    /// The same of a path or a URL below [`PREFIX`], percent-encoded. None: it is not below it, or makes no sense.
    pub(in crate::sfs) fn of_url(text: &str) -> Option<Self> {
        let uri: http::Uri = text.parse().ok()?;
        let below = uri.path().strip_prefix(PREFIX)?;
        let path = DavPath::new(if below.is_empty() { "/" } else { below }).ok()?;
        Self::of(&path).ok()
    }

    fn parse(text: &str) -> Result<Self, SfsError> {
        let text = text.trim_matches('/');
        match text.split_once('/') {
            None if text.is_empty() => Ok(Self::Root),
            None => Ok(Self::Namespace(text.to_owned())),
            Some((namespace, path)) => {
                // None that is called so: it is only not there.
                let namespace = namespace.parse().map_err(|_| SfsError::NotFound("namespace"))?;
                Ok(Self::Entry(Place { namespace, path: path.parse()? }))
            }
        }
    }

    /// What it is in.
    pub(super) fn parent(&self) -> Self {
        match self {
            Self::Root | Self::Namespace(_) => Self::Root,
            Self::Entry(place) => match place.path.parent() {
                None => Self::Namespace(place.namespace.to_string()),
                Some(path) => Self::Entry(Place { namespace: place.namespace.clone(), path }),
            },
        }
    }

    pub(super) fn entry(self) -> Option<Place> {
        if let Self::Entry(place) = self { Some(place) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(namespace: &str, path: &str) -> Spot {
        let namespace = namespace.parse().expect("a name");
        Spot::Entry(Place { namespace, path: path.parse().expect("a path") })
    }

    #[test]
    fn a_path_leads_to_one_spot_however_it_is_written() {
        let of = |text: &str| Spot::of(&DavPath::new(text).expect("a path")).expect("a spot");
        assert_eq!(of("/"), Spot::Root);
        assert_eq!(
            (of("/docs"), of("/docs/")),
            (Spot::Namespace("docs".to_owned()), Spot::Namespace("docs".to_owned()))
        );
        for text in ["/docs/a%20b/c", "//docs/a b//c/", "/x/../docs/./a%20b/c"] {
            assert_eq!(of(text), entry("docs", "a b/c"), "{text}");
        }
        assert_eq!(of("/docs/e%CC%81"), of("/docs/%C3%A9"), "one name, two encodings");
        for text in ["/docs/%ff", "/docs/a%0ab", "/docs/a%E2%80%AEb"] {
            let refused = Spot::of(&DavPath::new(text).expect("a path")).expect_err(text);
            assert!(matches!(refused, SfsError::Invalid(_)), "{text}: {refused}");
        }
        let unknown = Spot::of(&DavPath::new("/Docs/a").expect("a path"));
        assert!(matches!(unknown, Err(SfsError::NotFound(_))));
    }

    #[test]
    fn a_destination_is_a_url_or_a_path_below_ours() {
        for text in ["https://cloud.example/storage/dav/docs/a%20b", "/storage/dav/docs/a%20b"] {
            assert_eq!(Spot::of_url(text), Some(entry("docs", "a b")), "{text}");
        }
        assert_eq!(Spot::of_url("/storage/dav"), Some(Spot::Root));
        for text in ["", "/storage/docs/a", "/storage/davos", "https://cloud.example", "/storage/dav/../../x"] {
            assert_eq!(Spot::of_url(text), None, "{text}");
        }
    }

    #[test]
    fn everything_is_in_something() {
        assert_eq!(entry("docs", "a/b").parent(), entry("docs", "a"));
        assert_eq!(entry("docs", "a").parent(), Spot::Namespace("docs".to_owned()));
        assert_eq!(Spot::Namespace("docs".to_owned()).parent(), Spot::Root);
    }
}
