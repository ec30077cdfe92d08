//! The page of the default image, so that the first request to a new container has an answer.

use std::env;
use std::io;

use axum::Router;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use tokio::net::TcpListener;

/// Serves the page where the container is reached.
pub(super) async fn serve() -> io::Result<()> {
    let variable = |name: &str| env::var(name).map_err(|_| io::Error::other(format!("{name} is not set")));
    let (host, port) = (variable("HOST")?, variable("PORT")?);
    let page = Page { id: variable("EDD_CONTAINER_ID")?, name: variable("EDD_CONTAINER_NAME")? };
    let address = format!("{host}:{port}");
    let listener = TcpListener::bind(&address)
        .await
        .map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}")))?;
    println!("listening on {address}");
    axum::serve(listener, Router::new().fallback(move |headers| std::future::ready(page.answer(&headers)))).await
}

#[derive(Clone, Debug)]
struct Page {
    id: String,
    name: String,
}

impl Page {
    fn answer(&self, headers: &HeaderMap) -> Response {
        let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
        if accept.contains("text/html") {
            return Html(self.html()).into_response();
        }
        (StatusCode::OK, format!("This is the container {} ({}).\n", self.name, self.id)).into_response()
    }

    fn html(&self) -> String {
        let (id, name) = (&self.id, escape(&self.name));
        format!(
            "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>{name}</title>\n\
             <style>body{{font:1rem/1.5 system-ui,sans-serif;max-width:36rem;margin:15vh auto;padding:0 1rem}}\
             code{{background:#8882;padding:.1em .3em;border-radius:.2em}}</style>\n\
             <h1>{name}</h1>\n<p>This is the container <code>{id}</code>. It runs, and this page is served from \
             within it.</p>\n<p>Open its terminal, stop what serves this page, and listen on port \
             <code>$PORT</code> yourself.</p>\n</html>\n"
        )
    }
}

fn escape(text: &str) -> String {
    text.chars().fold(String::new(), |mut escaped, c| {
        match c {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            c => escaped.push(c),
        }
        escaped
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_text_and_not_markup() {
        let page = Page { id: "c234567890".to_owned(), name: "<script>a&b".to_owned() };
        let html = page.html();
        assert!(html.contains("<h1>&lt;script&gt;a&amp;b</h1>") && !html.contains("<script>"), "{html}");
        assert!(html.contains("<code>c234567890</code>"));
    }
}
