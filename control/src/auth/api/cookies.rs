//! The cookies of a browser that is signed in.
//!
//! Both are `__Host-`: a browser takes them over HTTPS alone, without a domain, for the path `/`, so no tenant on a
//! sibling host can set or see them. Chromium (156, tried) takes them over plain HTTP as well from `localhost` and names
//! below it, which it knows to be this machine; a browser that does not is told so by the sign-in page.

use edd_events::clock::Micros;
use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::auth::service::SignedIn;

/// The access token.
const ACCESS: &str = "__Host-edd";
const REFRESH: &str = "__Host-edd-refresh";
/// What edd-cloud set. Read, never set.
const OLD: &str = "token";

/// What a browser sent.
#[derive(Debug, Default)]
pub struct Cookies {
    pub access: Option<String>,
    pub refresh: Option<String>,
}

impl Cookies {
    /// Reads the headers. A name that comes twice counts for nothing: one of them is not ours.
    pub fn read(headers: &HeaderMap) -> Self {
        let lines = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
        let pairs: Vec<(&str, &str)> =
            lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('=')).collect();
        let one = |name| {
            let mut values = pairs.iter().filter(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
            values.next().filter(|value| !value.is_empty() && values.next().is_none())
        };
        Self { access: one(ACCESS).or_else(|| one(OLD)), refresh: one(REFRESH) }
    }

    /// The headers that keep somebody signed in.
    pub fn keep(signed_in: &SignedIn, now: Micros) -> Vec<(HeaderName, HeaderValue)> {
        let mut cookies = vec![cookie(ACCESS, &signed_in.access_token, signed_in.access_expires_at - now)];
        if let Some(token) = &signed_in.refresh_token {
            cookies.push(cookie(REFRESH, token.expose(), signed_in.session.expires_at - now));
        }
        cookies
    }

    /// The headers that forget them.
    pub fn forget() -> Vec<(HeaderName, HeaderValue)> {
        vec![cookie(ACCESS, "", 0), cookie(REFRESH, "", 0)]
    }
}

fn cookie(name: &str, value: &str, lifetime: Micros) -> (HeaderName, HeaderValue) {
    let max_age = lifetime.max(0) / 1_000_000;
    let text = format!("{name}={value}; Path=/; Max-Age={max_age}; Secure; HttpOnly; SameSite=Lax");
    let mut value = HeaderValue::from_str(&text).expect("tokens are of base64url and dots");
    value.set_sensitive(true);
    (SET_COOKIE, value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> (Option<String>, Option<String>) {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(COOKIE, line.parse().expect("a header"));
        }
        let cookies = Cookies::read(&headers);
        (cookies.access, cookies.refresh)
    }

    #[test]
    fn our_own_cookies_are_read_and_an_old_clients() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(read(&["a=b; __Host-edd=x.y.z;__Host-edd-refresh=r"]), (some("x.y.z"), some("r")));
        assert_eq!(read(&["__Host-edd=x", "token=old"]), (some("x"), None));
        assert_eq!(read(&["token=old"]), (some("old"), None));
        assert_eq!(read(&["token=old; token=a-tenants"]), (None, None));
        assert_eq!(read(&["__Host-edd=", "nonsense", "x__Host-edd=y"]), (None, None));
    }

    #[test]
    fn cookies_are_for_this_host_alone_and_end_with_what_they_hold() {
        let (name, value) = cookie(ACCESS, "a.b.c", 900_999_999);
        assert_eq!(name, SET_COOKIE);
        assert!(value.is_sensitive());
        assert_eq!(value, "__Host-edd=a.b.c; Path=/; Max-Age=900; Secure; HttpOnly; SameSite=Lax");
        for (_, value) in Cookies::forget() {
            assert!(value.to_str().expect("text").contains("=; Path=/; Max-Age=0; Secure"));
        }
    }
}
