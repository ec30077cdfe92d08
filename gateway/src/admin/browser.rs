//! Who changes something by the admin listener is a program.

use axum::http::{HeaderMap, header};

use crate::admin::problem::Problem;

/// The listener knows no passwords: it trusts whoever reaches it. A page in a browser on this machine reaches it too,
/// from any site and under any name, and a browser says so with every write.
///
/// # Errors
/// A browser asks.
pub fn refuse(headers: &HeaderMap) -> Result<(), Problem> {
    if headers.contains_key(header::ORIGIN) || headers.contains_key("sec-fetch-site") {
        return Err(Problem::forbidden("pages in browsers change nothing here; use `edd` or another program"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_browser_sends_is_refused() {
        let headers =
            |name: &'static str, value: &str| HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())]);
        for (name, value) in [("origin", "http://evil.example"), ("origin", "null"), ("sec-fetch-site", "same-origin")]
        {
            assert!(refuse(&headers(name, value)).is_err(), "{name}: {value}");
        }
        assert!(refuse(&headers("user-agent", "curl/8")).is_ok());
    }
}
