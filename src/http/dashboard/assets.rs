//! The page and its parts, compiled in: nothing is built, fetched or read at run time.
//! Must not know what they show.

use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY};
use axum::response::{IntoResponse, Response};

/// The page asks this server and no other, runs no inline code, and sends nothing elsewhere.
const POLICY: &str =
    "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'";

/// One file.
#[derive(Debug)]
pub(super) struct Asset {
    pub(super) path: &'static str,
    kind: &'static str,
    text: &'static str,
}

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// A file of `page`.
macro_rules! asset {
    ($path:literal, $file:literal, $kind:expr) => {
        Asset { path: $path, kind: $kind, text: include_str!(concat!("page/", $file)) }
    };
}

/// All of them.
pub(super) static ALL: &[Asset] = &[
    asset!("/", "index.html", "text/html; charset=utf-8"),
    asset!("/dashboard/style.css", "style.css", "text/css; charset=utf-8"),
    asset!("/dashboard/icon.svg", "icon.svg", "image/svg+xml"),
    asset!("/dashboard/app.js", "app.js", SCRIPT),
    asset!("/dashboard/charts.js", "charts.js", SCRIPT),
    asset!("/dashboard/dom.js", "dom.js", SCRIPT),
    asset!("/dashboard/events.js", "events.js", SCRIPT),
    asset!("/dashboard/format.js", "format.js", SCRIPT),
    asset!("/dashboard/herd.js", "herd.js", SCRIPT),
    asset!("/dashboard/tables.js", "tables.js", SCRIPT),
    asset!("/dashboard/theme.js", "theme.js", SCRIPT),
];

impl Asset {
    pub(super) fn answer(&self) -> Response {
        let headers = [
            (CONTENT_TYPE, self.kind),
            (CONTENT_SECURITY_POLICY, POLICY),
            (REFERRER_POLICY, "no-referrer"),
            // A new version of pgherd comes with a new page.
            (CACHE_CONTROL, "no-cache"),
        ];
        (headers, self.text).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_names_nothing_that_is_elsewhere_and_nothing_that_is_missing() {
        for asset in ALL {
            let foreign = asset.text.replace("http://www.w3.org/", "");
            assert!(!foreign.contains("://"), "{} names another host", asset.path);
            for part in asset.text.split('"').filter(|part| part.starts_with("/dashboard/")) {
                assert!(ALL.iter().any(|a| a.path == part), "{} asks for {part}", asset.path);
            }
            for part in asset.text.split('"').filter_map(|part| part.strip_prefix("./")) {
                assert!(ALL.iter().any(|a| a.path == format!("/dashboard/{part}")), "{}: {part}", asset.path);
            }
        }
    }

    #[test]
    fn what_servers_and_clients_say_never_becomes_markup() {
        for asset in ALL.iter().filter(|a| a.kind == SCRIPT) {
            for way in
                ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "DOMParser"]
            {
                assert!(!asset.text.contains(way), "{} uses {way}", asset.path);
            }
        }
    }
}
