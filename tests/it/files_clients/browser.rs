//! A browser, in which the share is on the dashboard's own origin.

use serde_json::Value;

use super::site::{HOST, NAMESPACE, Site, USER};
use crate::harness::browser::{Browser, wanted};
use crate::harness::within;

/// Asks again where Chromium gave up: it aborts what is under way when the machine gets another address, as it does
/// from the containers of other tests.
const FETCH: &str = r"
window.patient = async (...what) => {
  for (let tries = 1; ; tries++) try { return await fetch(...what) } catch (error) { if (tries === 5) throw error }
}
";

/// A form as a page has it: the browser makes the request by itself, and shows the answer.
const FORM: &str = r#"
(async () => {
  const frame = Object.assign(document.createElement('iframe'), { name: 'answer' })
  document.body.append(frame)
  const form = document.createElement('form')
  form.method = 'post'
  form.enctype = 'multipart/form-data'
  form.action = '/storage/docs/by%20form.txt'
  form.target = 'answer'
  const input = Object.assign(document.createElement('input'), { type: 'file', name: 'file' })
  const files = new DataTransfer()
  files.items.add(new File(['from a form'], 'by form.txt', { type: 'text/plain' }))
  input.files = files.files
  form.append(input)
  document.body.append(form)
  for (let tries = 1; ; tries++) {
    const loaded = new Promise(resolve => { frame.onload = resolve })
    form.submit()
    await loaded
    const kept = await patient('/storage/docs/by%20form.txt')
    if (kept.ok || tries === 5) return kept.status + ' ' + await kept.text()
  }
})()
"#;

/// Opens a file in a frame, whose script, if it ran, would write into the page around it.
const OPEN: &str = r#"
(async () => {
  const kept = await patient('/storage/docs/NAME?overwrite=true', { method: 'PUT', body: new Blob([BODY], { type: 'TYPE' }) })
  if (!kept.ok) return 'not kept: ' + kept.status
  localStorage.setItem('secret', 'of the dashboard')
  window.stolen = null
  window.onmessage = message => { window.stolen = message.data }
  const frame = document.createElement('iframe')
  frame.src = '/storage/docs/NAME'
  document.body.append(frame)
  // One that is shown loads. One that is saved does not, and nothing tells of that: the time is only as long as it takes to
  // see nothing.
  await Promise.race([new Promise(resolve => { frame.onload = resolve }), new Promise(resolve => setTimeout(resolve, 1500))])
  const readable = (() => { try { return frame.contentDocument?.documentElement?.outerHTML.includes('script') } catch { return false } })()
  return JSON.stringify({ stolen: window.stolen, readable: Boolean(readable) })
})()
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_sends_forms_and_runs_nothing_that_is_stored() {
    if !wanted() {
        return;
    }
    let mut site = Site::start().await;
    let https = site.deployment.gateway().https.port();
    // A page of the origin that has no policy of its own: what keeps files in check is theirs.
    let url = format!("https://{HOST}:{https}/.well-known/jwks.json");
    let mut browser = Browser::open(&url).await;
    within("the page", async { while browser.evaluate("location.href").await != url.as_str() {} }).await;
    browser.evaluate(FETCH).await;
    let sign_in = format!(
        "patient('/api/login', {{ method: 'POST', headers: {{ 'content-type': 'application/json' }}, \
         body: JSON.stringify({{ username: '{USER}', password: 'correct horse battery' }}) }}).then(answer => answer.status)"
    );
    assert_eq!(browser.evaluate(&sign_in).await, 200);
    let cookie = format!("patient('/storage/files?namespace={NAMESPACE}').then(answer => answer.status)");
    assert_eq!(browser.evaluate(&cookie).await, 200, "the browser is known by its cookie");
    assert_eq!(browser.evaluate(FORM).await, "200 from a form");

    let script = "<script>parent.postMessage(localStorage.getItem('secret'), '*')</script>";
    let vector = format!("<svg xmlns=\"http://www.w3.org/2000/svg\">{script}</svg>");
    for (name, media_type, body) in [
        ("page.html", "text/html", script),
        ("page.xhtml", "application/xhtml+xml", script),
        ("image.svg", "image/svg+xml", vector.as_str()),
        ("notes.txt", "text/plain", script),
        ("liar.png", "image/png", script),
    ] {
        let open = OPEN.replace("NAME", name).replace("TYPE", media_type);
        let open = open.replace("BODY", &Value::from(body).to_string());
        let told = browser.evaluate(&open).await;
        assert_eq!(told, r#"{"stolen":null,"readable":false}"#, "{name}");
    }
    // The same, were it a page of the dashboard, does reach it: what is tested can fail.
    let frame = format!(
        "new Promise(resolve => {{ window.onmessage = message => resolve(message.data); \
         document.body.append(Object.assign(document.createElement('iframe'), {{ srcdoc: {} }})) }})",
        Value::from(script)
    );
    assert_eq!(browser.evaluate(&frame).await, "of the dashboard");
    site.deployment.stop().await;
}
