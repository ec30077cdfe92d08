//! Where a request's token is, and whether the request may use it.
//!
//! | First that is there | Sent by | Unsafe methods, upgrades |
//! |---|---|---|
//! | `Authorization: Bearer …` | scripts, on purpose | as they are |
//! | `?token=…`, on routes that opt in: WebSockets, share links | scripts, on purpose | as they are |
//! | cookie `__Host-edd` | the browser, by itself | from the request's own origin alone |
//! | cookie `token`, of old clients | the browser, by itself | from the request's own origin alone |
//!
//! The first counts, also when it turns out to be no good: a request never falls back to who else it might be. A
//! credential that is there twice, and an `Authorization` of another scheme, are refused.
//!
//! Tenants' sites are on sibling subdomains: to a browser they are same-site, so that `SameSite` keeps none of them
//! from sending a request with the dashboard's cookie. The check of the origin does.

use http::header::{AUTHORIZATION, COOKIE, ORIGIN, UPGRADE};
use http::{HeaderMap, Method};

use crate::origin::Origin;

/// Set by the dashboard's host for itself alone.
pub const COOKIE_NAME: &str = "__Host-edd";
/// Of old clients: read, never set.
pub const OLD_COOKIE_NAME: &str = "token";
const QUERY_NAME: &str = "token";
const SEC_FETCH_SITE: &str = "sec-fetch-site";

/// Why a request's credentials cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    #[error("the request has more than one `Authorization` header")]
    TwoHeaders,
    #[error("the `Authorization` header is not `Bearer <token>`")]
    Scheme,
    #[error("the request has the cookie that it is known by more than once")]
    TwoCookies,
    #[error("the request has more than one `token` in its query")]
    TwoQueries,
    #[error("a request with a cookie has to come from a page of this origin: send the token in `Authorization`")]
    ForeignOrigin,
}

/// The token of a request; none if it has no credentials. `query` is that of a route which takes `?token=`, and
/// `own` the origin that the request was sent to.
///
/// # Errors
/// They contradict each other, or a cookie comes from another origin.
pub(crate) fn token<'a>(
    method: &Method,
    headers: &'a HeaderMap,
    query: Option<&'a str>,
    own: Option<&Origin>,
) -> Result<Option<&'a str>, CredentialError> {
    if let Some(token) = bearer(headers)? {
        return Ok(Some(token));
    }
    if let Some(token) = query.map(in_query).transpose()?.flatten() {
        return Ok(Some(token));
    }
    let mut cookies = [COOKIE_NAME, OLD_COOKIE_NAME].into_iter().map(|name| cookie(headers, name));
    let Some(token) = cookies.find_map(Result::transpose).transpose()? else { return Ok(None) };
    // A handshake is a GET, and opens a way to write.
    let acts = !method.is_safe() || headers.contains_key(UPGRADE);
    if acts && !is_same_origin(headers, own) {
        return Err(CredentialError::ForeignOrigin);
    }
    Ok(Some(token))
}

fn bearer(headers: &HeaderMap) -> Result<Option<&str>, CredentialError> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(CredentialError::TwoHeaders);
    }
    let (scheme, token) = value.to_str().ok().and_then(|value| value.split_once(' ')).ok_or(CredentialError::Scheme)?;
    let token = token.trim_matches(' ');
    if scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() && !token.contains(' ') {
        Ok(Some(token))
    } else {
        Err(CredentialError::Scheme)
    }
}

fn in_query(query: &str) -> Result<Option<&str>, CredentialError> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let mut values = pairs.filter(|(name, value)| *name == QUERY_NAME && !value.is_empty());
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        // Tokens are of URL-safe characters; whatever else is there is no token, and refused as such.
        (Some((_, value)), None) => Ok(Some(value)),
        (Some(_), Some(_)) => Err(CredentialError::TwoQueries),
    }
}

/// The value of the cookie `name`. A sibling subdomain cannot set a `__Host-` one; of another it can add a second.
pub(crate) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, CredentialError> {
    let lines = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let mut values = pairs.filter(|(key, _)| *key == name).map(|(_, value)| value.trim_matches('"'));
    match (values.next(), values.next()) {
        (Some(_), Some(_)) => Err(CredentialError::TwoCookies),
        (value, _) => Ok(value.filter(|value| !value.is_empty())),
    }
}

/// Whether a page of `own` sent the request. `Sec-Fetch-Site` is the browser's own word, which no script can change;
/// browsers that do not send it, and all of them over plain HTTP, send `Origin` with what is not safe.
pub(crate) fn is_same_origin(headers: &HeaderMap, own: Option<&Origin>) -> bool {
    let one = |name: &str| {
        let mut values = headers.get_all(name).iter();
        let value = values.next().map(|value| value.to_str().unwrap_or_default());
        (value, values.next().is_some())
    };
    match (one(SEC_FETCH_SITE), one(ORIGIN.as_str())) {
        ((_, true), _) | (_, (_, true)) => false,
        ((Some(site), _), _) => site == "same-origin",
        (_, (origin, _)) => {
            origin.and_then(|origin| origin.parse().ok()).is_some_and(|origin: Origin| own == Some(&origin))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "https://cloud.example.org";
    const BY_COOKIE: (&str, &str) = ("cookie", "__Host-edd=h");

    fn map(headers: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        map
    }

    fn sent(
        method: Method,
        headers: &[(&'static str, &str)],
        query: Option<&str>,
    ) -> Result<Option<String>, CredentialError> {
        let own = OWN.parse().unwrap();
        token(&method, &map(headers), query, Some(&own)).map(|token| token.map(str::to_owned))
    }

    fn get(headers: &[(&'static str, &str)], query: Option<&str>) -> Result<Option<String>, CredentialError> {
        sent(Method::GET, headers, query)
    }

    #[test]
    fn the_first_credential_counts() {
        let found = |headers: &[(&'static str, &str)], query| get(headers, query).unwrap();
        let bearer = ("authorization", "Bearer b");
        let both = ("cookie", "a=1; token=t; __Host-edd=h");
        assert_eq!(found(&[], None), None);
        assert_eq!(found(&[bearer, both], Some("token=q")).unwrap(), "b");
        assert_eq!(found(&[both], Some("a=1&token=q")).unwrap(), "q");
        assert_eq!(found(&[both], Some("tokens=q&token=&token")).unwrap(), "h");
        assert_eq!(found(&[both], None).unwrap(), "h");
        assert_eq!(found(&[("cookie", "a=1"), ("cookie", "token=\"t\"")], None).unwrap(), "t");
        assert_eq!(found(&[("cookie", "__Host-edd=; token=t")], None).unwrap(), "t", "signed out of the one");
        assert_eq!(found(&[("cookie", "Token=t; xtoken=u; token")], None), None);
        assert_eq!(found(&[("authorization", "bearer  b ")], None).unwrap(), "b");
    }

    #[test]
    fn contradictory_credentials_are_refused() {
        let refused = |headers: &[(&'static str, &str)], query| get(headers, query).unwrap_err();
        let bearer = ("authorization", "Bearer b");
        assert_eq!(refused(&[bearer, bearer], None), CredentialError::TwoHeaders);
        for value in ["Basic YTpi", "Bearer", "Bearer ", "Bearer a b", "b", ""] {
            assert_eq!(refused(&[("authorization", value), BY_COOKIE], None), CredentialError::Scheme, "{value:?}");
        }
        assert_eq!(refused(&[("cookie", "token=a; token=b")], None), CredentialError::TwoCookies);
        assert_eq!(
            refused(&[("cookie", "__Host-edd=a"), ("cookie", "__Host-edd=a")], None),
            CredentialError::TwoCookies
        );
        assert_eq!(refused(&[], Some("token=a&token=b")), CredentialError::TwoQueries);
    }

    /// Who may send a request that acts with somebody's cookie.
    #[test]
    fn cookies_act_from_their_own_origin_alone() {
        let table: [(&[(&'static str, &str)], bool); 18] = [
            (&[("origin", OWN)], true),
            (&[("origin", "https://CLOUD.example.org:443")], true),
            (&[("origin", "https://abc.compute.cloud.example.org")], false),
            (&[("origin", "https://auth.cloud.example.org")], false),
            (&[("origin", "http://cloud.example.org")], false),
            (&[("origin", "https://cloud.example.org:8443")], false),
            (&[("origin", "https://cloud.example.org.evil.example")], false),
            (&[("origin", "null")], false),
            (&[("origin", "")], false),
            (&[("origin", OWN), ("origin", OWN)], false),
            (&[], false),
            (&[("referer", "https://cloud.example.org/")], false),
            (&[("sec-fetch-site", "same-origin")], true),
            (&[("sec-fetch-site", "same-site"), ("origin", OWN)], false),
            (&[("sec-fetch-site", "cross-site")], false),
            (&[("sec-fetch-site", "none")], false),
            (&[("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")], false),
            (&[("sec-fetch-site", "Same-Origin ")], false),
        ];
        for (extra, allowed) in table {
            for method in
                [Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::from_bytes(b"PURGE").unwrap()]
            {
                let with = |credential| [&[credential], extra].concat();
                let expected = if allowed { Ok(Some("h".to_owned())) } else { Err(CredentialError::ForeignOrigin) };
                assert_eq!(sent(method.clone(), &with(BY_COOKIE), None), expected, "{method} {extra:?}");
                let by_header = sent(method.clone(), &with(("authorization", "Bearer b")), None);
                assert_eq!(by_header, Ok(Some("b".to_owned())), "{method} {extra:?}");
            }
            let handshake = [&[BY_COOKIE, ("upgrade", "websocket")], extra].concat();
            assert_eq!(get(&handshake, None).is_ok(), allowed, "{extra:?}");
            assert_eq!(get(&handshake, Some("token=q")), Ok(Some("q".to_owned())), "{extra:?}");
            for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
                assert!(sent(method, &[&[BY_COOKIE], extra].concat(), None).is_ok(), "{extra:?}");
            }
        }
        let nowhere = token(&Method::POST, &map(&[BY_COOKIE, ("origin", OWN)]), None, None).map(drop);
        assert_eq!(nowhere, Err(CredentialError::ForeignOrigin), "a request that names no host");
    }
}
