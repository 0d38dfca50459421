//! A connection to the HTTP API: one request at a time, kept alive.
//! Must not know what is measured.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, Uri};
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::super::Failure;
use super::failed::Failed;
use super::operation::{Operation, Task};

/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(10);

/// Where the API is, and as whom to ask it.
pub(super) struct Site {
    /// `host:port`.
    address: String,
    /// Credentials are marked sensitive: they are not shown by `Debug`.
    authorization: Option<HeaderValue>,
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.address)
    }
}

impl Site {
    /// Reads `http://user:password@host:port`; the password may come separately.
    ///
    /// # Errors
    /// What is wrong with the URL.
    pub(super) fn new(url: &str, password: Option<String>) -> Result<Self, Failure> {
        let wrong = |what: String| {
            Failure::new(format!("--http: {what}"))
                .remedy("write it as http://user:password@host:port; the password may be in PGPASSWORD")
        };
        let uri: Uri = url.parse().map_err(|e| wrong(format!("{e}")))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some(other) => return Err(wrong(format!("\"{other}\" is not supported, only http"))),
            None => return Err(wrong("the URL does not begin with http://".into())),
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(wrong("the URL ends after host and port".into()));
        }
        let host = uri.host().filter(|h| !h.is_empty()).ok_or_else(|| wrong("no host".into()))?;
        let address = format!("{host}:{}", uri.port_u16().unwrap_or(80));
        let user_info = uri.authority().and_then(|a| a.as_str().rsplit_once('@')).map(|(info, _)| info);
        let authorization = match user_info {
            None => None,
            Some(info) => Some(basic(info, password).map_err(wrong)?),
        };
        Ok(Self { address, authorization })
    }
}

/// The header of `user:password`, both percent-encoded.
fn basic(info: &str, password: Option<String>) -> Result<HeaderValue, String> {
    let decoded = |text: &str| {
        let decoded = percent_decode_str(text).decode_utf8().map_err(|_| "the user is not UTF-8");
        decoded.map(std::borrow::Cow::into_owned)
    };
    let (user, password) = match info.split_once(':') {
        Some((user, password)) => (decoded(user)?, decoded(password)?),
        None => (decoded(info)?, password.unwrap_or_default()),
    };
    let encoded = STANDARD.encode(format!("{user}:{password}"));
    let mut value = HeaderValue::try_from(format!("Basic {encoded}")).map_err(|e| e.to_string())?;
    value.set_sensitive(true);
    Ok(value)
}

/// One connection.
pub(super) struct HttpConnection {
    site: Arc<Site>,
    sender: SendRequest<Full<Bytes>>,
}

impl HttpConnection {
    /// Connects.
    ///
    /// # Errors
    /// Why there is no connection.
    pub(super) async fn new(site: Arc<Site>) -> Result<Self, Failed> {
        let what = format!("connecting to {site}");
        let stream = match timeout(CONNECT, TcpStream::connect(&site.address)).await {
            Err(_) => return Err(Failed::new("", &format!("{what}: no answer within {CONNECT:?}"))),
            Ok(connected) => connected.map_err(|e| Failed::broken(&what, &e))?,
        };
        stream.set_nodelay(true).map_err(|e| Failed::broken(&what, &e))?;
        let (sender, connection) =
            handshake(TokioIo::new(stream)).await.map_err(|e| Failed::broken(&what, &e))?;
        // Ends when the sender is dropped; its error reaches the request under way.
        tokio::spawn(connection);
        Ok(Self { site, sender })
    }

    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// One request of the mix, to the end of its answer.
    ///
    /// # Errors
    /// An answer other than success, or none.
    pub(super) async fn run(&mut self, task: &Task<'_>) -> Result<(), Failed> {
        let key = utf8_percent_encode(task.user_id, NON_ALPHANUMERIC);
        match task.operation {
            Operation::UserById => {
                self.get(&format!("/api/read?table=users&limit=1&user_id=eq.{key}")).await?;
            }
            Operation::OrdersOfUser | Operation::JoinOfUser => {
                self.get(&format!("/api/read?table=orders&limit=100&user_id=eq.{key}")).await?;
            }
            Operation::InsertOrder | Operation::UpdateUser => {
                let amount = format!("{}.{:02}", task.cents / 100, task.cents % 100);
                let data = json!({ "user_id": task.user_id, "order_id": task.text, "amount": amount });
                self.request(Method::POST, "/api/write", Some(json!({ "table": "orders", "data": data })))
                    .await?;
            }
        }
        Ok(())
    }

    /// Rows of an answer to GET; each an object.
    ///
    /// # Errors
    /// An answer other than success, or none.
    pub(super) async fn rows(&mut self, path: &str) -> Result<Vec<Value>, Failed> {
        let body = self.get(path).await?;
        let json: Value =
            serde_json::from_slice(&body).map_err(|e| Failed::broken("reading the answer", &e))?;
        let rows = json.get("rows").unwrap_or(&json).as_array();
        rows.cloned().ok_or_else(|| Failed::new("", "the answer has no rows: is this pgherd's HTTP API?"))
    }

    async fn get(&mut self, path: &str) -> Result<Bytes, Failed> {
        self.request(Method::GET, path, None).await
    }

    async fn request(&mut self, method: Method, path: &str, body: Option<Value>) -> Result<Bytes, Failed> {
        let mut request = Request::builder().method(method).uri(path).header(HOST, &self.site.address);
        if let Some(authorization) = &self.site.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let body = Bytes::from(body.map(|json| json.to_string()).unwrap_or_default());
        let request = request.body(Full::new(body)).map_err(|e| Failed::broken("making a request", &e))?;
        let broken = |e: hyper::Error| Failed::broken("the connection broke", &e);
        self.sender.ready().await.map_err(broken)?;
        let answer = self.sender.send_request(request).await.map_err(broken)?;
        let status = answer.status();
        let body = answer.into_body().collect().await.map_err(broken)?.to_bytes();
        if status.is_success() { Ok(body) } else { Err(Failed::answered(status.as_u16(), &body)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_where_and_as_whom() {
        let site = Site::new("http://ad%3Amin:p%40ss@localhost:3000/", None).unwrap();
        assert_eq!(site.to_string(), "http://localhost:3000");
        assert_eq!(
            site.authorization.as_ref().unwrap(),
            &format!("Basic {}", STANDARD.encode("ad:min:p@ss"))
        );
        let site = Site::new("http://app@[::1]", Some("secret".into())).unwrap();
        assert_eq!((site.address.as_str(), site.authorization.is_some()), ("[::1]:80", true));
        assert!(
            Site::new("http://h:1", Some("not sent without a user".into())).unwrap().authorization.is_none()
        );
        for (wrong, why) in [
            ("https://h:1", "only http"),
            ("h:1/x", ""),
            ("http://h:1/api", "ends after host and port"),
            ("http://:1", ""),
        ] {
            let failure = Site::new(wrong, None).err().unwrap_or_else(|| panic!("{wrong}")).to_string();
            assert!(failure.contains("--http") && failure.contains(why), "{failure}");
        }
    }
}
