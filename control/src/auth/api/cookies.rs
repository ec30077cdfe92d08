//! The cookies of a browser that is signed in.
//!
//! Both are `__Host-`: a browser takes them over HTTPS alone, without a domain, for the path `/`, so no tenant on a
//! sibling host can set or see them. Chromium (156, tried) takes them over plain HTTP as well from `localhost` and names
//! below it, which it knows to be this machine; a browser that does not is told so by the sign-in page.

use edd_events::clock::Micros;
use http::header::SET_COOKIE;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::auth::service::SignedIn;
use crate::caller::COOKIE_NAME;
use crate::caller::credential::{self, CredentialError};
use crate::entropy::Secret;

const REFRESH: &str = "__Host-edd-refresh";

/// The refresh token that a browser sent.
pub fn refresh_token(headers: &HeaderMap) -> Result<Option<Secret>, CredentialError> {
    Ok(credential::cookie(headers, REFRESH)?.map(Secret::of))
}

/// The headers that keep somebody signed in.
pub fn keep(signed_in: &SignedIn, now: Micros) -> Vec<(HeaderName, HeaderValue)> {
    let mut cookies = vec![cookie(COOKIE_NAME, &signed_in.access_token, signed_in.access_expires_at - now)];
    if let Some(token) = &signed_in.refresh_token {
        cookies.push(cookie(REFRESH, token.expose(), signed_in.session.expires_at - now));
    }
    cookies
}

/// The headers that forget them.
pub fn forget() -> Vec<(HeaderName, HeaderValue)> {
    vec![cookie(COOKIE_NAME, "", 0), cookie(REFRESH, "", 0)]
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

    #[test]
    fn cookies_are_for_this_host_alone_and_end_with_what_they_hold() {
        let (name, value) = cookie(COOKIE_NAME, "a.b.c", 900_999_999);
        assert_eq!(name, SET_COOKIE);
        assert!(value.is_sensitive());
        assert_eq!(value, "__Host-edd=a.b.c; Path=/; Max-Age=900; Secure; HttpOnly; SameSite=Lax");
        for (_, value) in forget() {
            assert!(value.to_str().expect("text").contains("=; Path=/; Max-Age=0; Secure"));
        }
    }
}
