//! Sessions over SSH: listed and ended.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Json, Response};
use serde::Deserialize;
use uuid::Uuid;

use crate::admin::problem::Problem;
use crate::admin::{Admin, browser};
use crate::ssh::sessions::{MAX_LISTED, Sessions, Which};

/// Which sessions, as a query says it.
#[derive(Deserialize)]
pub struct Chosen {
    id: Option<String>,
    container: Option<String>,
    user: Option<String>,
}

impl Chosen {
    /// Whichever of the three is given; all sessions for none.
    fn which(&self) -> Result<Which, Problem> {
        match (&self.id, &self.container, &self.user) {
            (None, None, None) => Ok(Which::All),
            (Some(id), None, None) => parse(id).map(Which::Session),
            (None, Some(container), None) => parse(container).map(Which::Container),
            (None, None, Some(user)) => parse(user).map(Which::User),
            _ => Err(Problem::bad_request("say one of id, container and user")),
        }
    }
}

#[derive(Deserialize)]
pub struct Page {
    /// The last id of the page before.
    after: Option<String>,
    limit: Option<usize>,
}

/// `GET /ssh/sessions?id=|container=|user=&after=&limit=`
pub async fn list(
    State(admin): State<Admin>,
    chosen: Result<Query<Chosen>, QueryRejection>,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Response, Problem> {
    let (Query(chosen), Query(page)) = (chosen?, page?);
    let after = page.after.as_deref().map(parse::<Uuid>).transpose()?;
    let most = page.limit.unwrap_or(MAX_LISTED);
    if !(1..=MAX_LISTED).contains(&most) {
        return Err(Problem::bad_request(&format!("limit is a number from 1 to {MAX_LISTED}")));
    }
    let (listed, more) = sessions(&admin)?.list(chosen.which()?, after, most);
    Ok(Json(serde_json::json!({ "sessions": listed, "more": more })).into_response())
}

/// `DELETE /ssh/sessions?id=|container=|user=`
pub async fn kill(
    State(admin): State<Admin>,
    headers: HeaderMap,
    chosen: Result<Query<Chosen>, QueryRejection>,
) -> Result<Response, Problem> {
    browser::refuse(&headers)?;
    let which = chosen?.which()?;
    if which == Which::All {
        return Err(Problem::bad_request("say which sessions: /ssh/sessions?id=, ?container= or ?user="));
    }
    let killed = sessions(&admin)?.kill(which);
    if let (0, Which::Session(id)) = (killed, which) {
        return Err(Problem::not_found(&format!("no session {id} goes on here; it may have ended")));
    }
    tracing::info!(?which, killed, "an operator ended sessions over SSH");
    Ok(Json(serde_json::json!({ "killed": killed })).into_response())
}

fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, Problem> {
    text.parse().map_err(|error| Problem::bad_request(&format!("{text:?}: {error}")))
}

fn sessions(admin: &Admin) -> Result<&Sessions, Problem> {
    admin.ssh_sessions.as_ref().ok_or_else(|| Problem::not_found("this gateway takes no logins over SSH"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_choice_is_made_at_a_time() {
        let chosen = |id: Option<&str>, container: Option<&str>, user: Option<&str>| {
            let text = |text: Option<&str>| text.map(str::to_owned);
            Chosen { id: text(id), container: text(container), user: text(user) }.which().ok()
        };
        let (id, container, user) = ("018d2f4e-3800-7001-8000-000000000002", "abcdefghij", "V1StGXR8_Z5jdHi6B-myT");
        assert_eq!(chosen(None, None, None), Some(Which::All));
        assert_eq!(chosen(Some(id), None, None), Some(Which::Session(id.parse().unwrap())));
        assert_eq!(chosen(None, Some(container), None), Some(Which::Container(container.parse().unwrap())));
        assert_eq!(chosen(None, None, Some(user)), Some(Which::User(user.parse().unwrap())));
        assert_eq!(chosen(Some("x"), None, None), None);
        assert_eq!(chosen(None, Some("x"), None), None);
        assert_eq!(chosen(None, Some(container), Some(user)), None);
    }
}
