//! The page at `/docs`: what `/openapi.json` says, to read and to try, with nothing from elsewhere.

use bytes::Bytes;
use http::{HeaderValue, header};

use crate::reply::{Answer, ok};

/// The page. Its one style and one script carry [`NONCE`], which each answer has anew.
const PAGE: &str = include_str!("page.html");
const NONCE: &str = "{{nonce}}";

/// The page, with a policy under which it runs no script but its own and talks to nobody else.
pub(crate) fn page() -> Answer {
    let nonce = format!("{:032x}", rand::random::<u128>());
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; \
         connect-src 'self'; img-src blob: data:; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'"
    );
    let mut answer = ok("text/html; charset=utf-8", Bytes::from(PAGE.replace(NONCE, &nonce)));
    let headers = answer.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    // Hexadecimal digits within a fixed text: a valid value.
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    answer
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn the_page_needs_nothing_from_elsewhere() {
        let (one, other) = (page(), page());
        let policy = |page: &Answer| page.headers()[header::CONTENT_SECURITY_POLICY].clone();
        assert_ne!(policy(&one), policy(&other), "each has a nonce of its own");
        let body = one.into_body().collect().await.unwrap().to_bytes();
        let text = String::from_utf8(body.to_vec()).unwrap();
        assert!(!text.contains(NONCE));
        for outside in ["http://", "https://", "//cdn", "@import", " src=", " onclick=", "style=\""]
        {
            assert!(!text.contains(outside), "{outside}");
        }
        assert_eq!(text.matches("<script nonce=").count(), 1);
        assert_eq!(text.matches("<script").count(), 1);
    }
}
