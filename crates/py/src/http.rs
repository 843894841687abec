//! The common case of HTTP/1.1, compiled: the head of a whole request that has no body and asks for nothing special, and
//! a response whose body is one piece of known length.
//!
//! What is not the common case is None, and is read or written by `manyhands.server`, which alone knows what is refused and
//! why: there is no second opinion here on a request that somebody could play against the first one. So a head is
//! taken only if every byte of it is one that the other way takes as well, and means the same there; the tests
//! compare the two.

use pyo3::PyTraverseError;
use pyo3::gc::PyVisit;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyList, PyString, PyTuple};

/// Headers of one request; more are read the other way.
const MOST_HEADERS: usize = 64;

/// The headers of nearly all requests, by their keys in an environ. Others get theirs made.
const KEYS: [(&str, &str); 30] = [
    ("accept", "HTTP_ACCEPT"),
    ("accept-encoding", "HTTP_ACCEPT_ENCODING"),
    ("accept-language", "HTTP_ACCEPT_LANGUAGE"),
    ("authorization", "HTTP_AUTHORIZATION"),
    ("cache-control", "HTTP_CACHE_CONTROL"),
    ("connection", "HTTP_CONNECTION"),
    ("content-type", "CONTENT_TYPE"),
    ("cookie", "HTTP_COOKIE"),
    ("dnt", "HTTP_DNT"),
    ("forwarded", "HTTP_FORWARDED"),
    ("host", "HTTP_HOST"),
    ("if-modified-since", "HTTP_IF_MODIFIED_SINCE"),
    ("if-none-match", "HTTP_IF_NONE_MATCH"),
    ("origin", "HTTP_ORIGIN"),
    ("pragma", "HTTP_PRAGMA"),
    ("priority", "HTTP_PRIORITY"),
    ("range", "HTTP_RANGE"),
    ("referer", "HTTP_REFERER"),
    ("sec-ch-ua", "HTTP_SEC_CH_UA"),
    ("sec-ch-ua-mobile", "HTTP_SEC_CH_UA_MOBILE"),
    ("sec-ch-ua-platform", "HTTP_SEC_CH_UA_PLATFORM"),
    ("sec-fetch-dest", "HTTP_SEC_FETCH_DEST"),
    ("sec-fetch-mode", "HTTP_SEC_FETCH_MODE"),
    ("sec-fetch-site", "HTTP_SEC_FETCH_SITE"),
    ("sec-fetch-user", "HTTP_SEC_FETCH_USER"),
    ("upgrade-insecure-requests", "HTTP_UPGRADE_INSECURE_REQUESTS"),
    ("user-agent", "HTTP_USER_AGENT"),
    ("x-forwarded-for", "HTTP_X_FORWARDED_FOR"),
    ("x-forwarded-proto", "HTTP_X_FORWARDED_PROTO"),
    ("x-requested-with", "HTTP_X_REQUESTED_WITH"),
];

/// Headers that say something about the body or the connection beyond its being kept.
const SPECIAL: [&str; 5] = ["content-length", "transfer-encoding", "expect", "upgrade", "proxy-connection"];

/// Headers of a response that the server sets, or has to look at.
const SERVERS: [&str; 8] =
    ["connection", "date", "keep-alive", "server", "te", "trailer", "transfer-encoding", "upgrade"];

/// Whether the name is one of these, which are in lower case.
fn is_one_of(name: &str, names: &[&str]) -> bool {
    names.iter().any(|other| name.eq_ignore_ascii_case(other))
}

/// RFC 3986 (3.2), without user information.
fn is_authority(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"_.~%!$&'()*+,;=:[]-".contains(byte))
}

/// Whether a line or a head cannot end in it, and it is ASCII.
fn is_text(text: &[u8]) -> bool {
    text.iter().all(|byte| matches!(byte, b'\t' | 0x20..=0x7e))
}

/// What is taken of a head.
struct Head<'a> {
    method: &'a str,
    target: &'a str,
}

/// Reads a head that is the common case, and its headers into `headers`.
fn read<'a>(data: &'a [u8], headers: &mut [httparse::Header<'a>]) -> Option<(Head<'a>, usize)> {
    // Every line ends in CR LF, and nothing follows the blank one. llhttp and httparse differ in what else they let pass.
    let mut lines = 0;
    for (at, byte) in data.iter().enumerate() {
        match byte {
            b'\n' if at > 0 && data[at - 1] == b'\r' => lines += 1,
            b'\r' if data.get(at + 1) == Some(&b'\n') => {}
            b'\t' | 0x20..=0x7e => {}
            _ => return None,
        }
    }
    let mut request = httparse::Request::new(headers);
    let Ok(httparse::Status::Complete(end)) = request.parse(data) else { return None };
    let (Some(method @ ("GET" | "HEAD")), Some(target), Some(1)) = (request.method, request.path, request.version)
    else {
        return None;
    };
    // httparse skips blank lines, and blanks between the words of the first one.
    let first = method.len() + target.len() + " HTTP/1.1\r\n".len() + 1;
    let found = request.headers.len();
    let plain = end == data.len() && lines == found + 2 && data.get(first - 1) == Some(&b'\n') && data[0] != b'\r';
    let target_is_path = target.starts_with('/') && !target.contains(['#', '%']);
    (plain && target_is_path).then_some((Head { method, target }, found))
}

fn keys(py: Python<'_>) -> &[Py<PyString>] {
    static MADE: PyOnceLock<Vec<Py<PyString>>> = PyOnceLock::new();
    MADE.get_or_init(py, || KEYS.iter().map(|(_, key)| PyString::intern(py, key).unbind()).collect())
}

/// A header's key in the environ; None for one that is dropped: see `manyhands.server._environ`.
fn key_of<'py>(py: Python<'py>, name: &str) -> Option<Bound<'py, PyString>> {
    let known = KEYS.iter().position(|(known, _)| name.eq_ignore_ascii_case(known));
    if let Some(known) = known {
        return Some(keys(py)[known].bind(py).clone());
    }
    if name.contains('_') || name.eq_ignore_ascii_case("proxy") {
        return None;
    }
    let mut key = String::with_capacity(name.len() + 5);
    key.push_str("HTTP_");
    key.extend(name.chars().map(|letter| if letter == '-' { '_' } else { letter.to_ascii_uppercase() }));
    Some(PyString::new(py, &key))
}

/// A request as nearly all are: GET or HEAD of a path by HTTP/1.1, without a body, on a connection that is kept.
///
/// Attributes:
///     method: As it was sent.
///     name: The method and the path.
///     environ: Made as the head was read. The application's, once it has begun.
///
/// It has what `manyhands.server._head.Request` has beside them.
#[pyclass(frozen, module = "manyhands._core")]
pub struct PlainRequest {
    #[pyo3(get)]
    method: Py<PyString>,
    #[pyo3(get)]
    name: Py<PyString>,
    #[pyo3(get)]
    environ: Py<PyDict>,
    head: Py<PyBytes>,
}

#[pymethods]
impl PlainRequest {
    #[classattr]
    #[expect(non_upper_case_globals, reason = "an attribute's name")]
    const length: usize = 0;
    #[classattr]
    #[expect(non_upper_case_globals, reason = "an attribute's name")]
    const chunked: bool = false;
    #[classattr]
    #[expect(non_upper_case_globals, reason = "an attribute's name")]
    const http_10: bool = false;
    #[classattr]
    #[expect(non_upper_case_globals, reason = "an attribute's name")]
    const keep_alive: bool = true;

    /// As it was sent.
    #[getter]
    fn target<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        let target = self.head.as_bytes(py).split(|byte| *byte == b' ').nth(1);
        PyBytes::new(py, target.unwrap_or_default())
    }

    /// list of (name, value), both bytes, as they were sent and in order; no blanks around the values.
    #[getter]
    fn headers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
        let found = read(self.head.as_bytes(py), &mut headers).map_or(0, |(_, found)| found);
        let pair =
            |header: &httparse::Header<'_>| (PyBytes::new(py, header.name.as_bytes()), PyBytes::new(py, header.value));
        PyList::new(py, headers[..found].iter().map(pair))
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!("<PlainRequest {}>", self.name.bind(py).repr()?))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.environ)
    }
}

/// Read a whole request that is nothing special: GET or HEAD of a path, HTTP/1.1, no body, the connection kept.
///
/// Args:
///     data: Bytes that came.
///     template: The environ of such a request, with every key that each of them has; it is copied.
///     most: Headers that it may have.
///     remote: The client's address and port, as the environ is to have them; an empty one if it has none.
///
/// Returns:
///     The request; None if it is not such a one, or not one that is taken.
///
/// Threads: any.
#[pyfunction]
pub fn plain_request<'py>(
    py: Python<'py>,
    data: &Bound<'py, PyBytes>,
    template: &Bound<'py, PyDict>,
    most: usize,
    remote: (Bound<'py, PyString>, u16),
) -> PyResult<Option<PlainRequest>> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let Some((Head { method, target }, found)) = read(data.as_bytes(), &mut headers[..most.min(MOST_HEADERS)]) else {
        return Ok(None);
    };
    let headers = &headers[..found];
    let mut host = None;
    for header in headers {
        if header.name.eq_ignore_ascii_case("host") {
            if host.is_some() || !is_authority(header.value) {
                return Ok(None);
            }
            host = Some(header.value);
        } else if header.name.eq_ignore_ascii_case("connection") {
            if !header.value.eq_ignore_ascii_case(b"keep-alive") {
                return Ok(None);
            }
        } else if is_one_of(header.name, &SPECIAL) {
            return Ok(None);
        }
    }
    if host.is_none() {
        return Ok(None);
    }
    let environ = template.copy()?;
    let mut size = template.len();
    for header in headers {
        let Some(key) = key_of(py, header.name) else { continue };
        // It was looked at: nothing but ASCII is in it.
        let Ok(value) = core::str::from_utf8(header.value) else { return Ok(None) };
        environ.set_item(key, PyString::new(py, value))?;
        size += usize::from(!header.name.eq_ignore_ascii_case("host"));
    }
    if environ.len() != size {
        return Ok(None); // one came twice, and the two are to be joined
    }
    let method = if method == "GET" { intern!(py, "GET") } else { intern!(py, "HEAD") };
    let whole = PyString::new(py, target);
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    environ.set_item(intern!(py, "REQUEST_METHOD"), method)?;
    environ.set_item(intern!(py, "REQUEST_URI"), &whole)?;
    environ.set_item(intern!(py, "RAW_URI"), &whole)?;
    if path.len() == target.len() {
        environ.set_item(intern!(py, "PATH_INFO"), &whole)?;
    } else {
        environ.set_item(intern!(py, "PATH_INFO"), path)?;
        environ.set_item(intern!(py, "QUERY_STRING"), query)?;
    }
    static BODY: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    environ.set_item(intern!(py, "wsgi.input"), BODY.import(py, "io", "BytesIO")?.call0()?)?;
    let (address, port) = remote;
    if address.len()? > 0 {
        environ.set_item(intern!(py, "REMOTE_ADDR"), address)?;
        environ.set_item(intern!(py, "REMOTE_PORT"), PyString::new(py, &port.to_string()))?;
    } else {
        environ.del_item(intern!(py, "REMOTE_ADDR"))?;
        environ.del_item(intern!(py, "REMOTE_PORT"))?;
    }
    let name = PyString::new(py, &[method.to_str()?, path].join(" ")).unbind();
    Ok(Some(PlainRequest {
        method: method.clone().unbind(),
        name,
        environ: environ.unbind(),
        head: data.clone().unbind(),
    }))
}

/// Write a response whose body is one piece, and whose head is nothing special, for a connection of HTTP/1.1 that is kept.
///
/// Args:
///     status: As "200 OK".
///     headers: list of (name, value), both str.
///     body: All of it.
///     lines: What every head has.
///     whole: Whether the body's length is known without a Content-Length of the application's.
///     most: Bytes of the body that are copied behind the head.
///
/// Returns:
///     (head and body, the status as a number); None if there is more to decide, or something is wrong.
///
/// Threads: any.
#[pyfunction]
pub fn plain_response<'py>(
    py: Python<'py>,
    status: &Bound<'py, PyAny>,
    headers: &Bound<'py, PyList>,
    body: &Bound<'py, PyAny>,
    lines: &str,
    whole: bool,
    most: usize,
) -> PyResult<Option<(Bound<'py, PyBytes>, u16)>> {
    let Ok(body) = body.cast_exact::<PyBytes>() else { return Ok(None) };
    if body.as_bytes().len() > most {
        return Ok(None);
    }
    let Ok(status) = status.cast_exact::<PyString>() else { return Ok(None) };
    let Ok(status) = status.to_str() else { return Ok(None) };
    let code = status.get(..3).and_then(|code| code.parse::<u16>().ok()).filter(|code| (200..600).contains(code));
    let Some(code) = code.filter(|code| ![204, 304].contains(code)) else { return Ok(None) };
    if !is_text(status.as_bytes()) || !matches!(status.as_bytes().get(3), None | Some(b' ')) || status.starts_with('+')
    {
        return Ok(None);
    }
    let body = body.as_bytes();
    let mut response = Vec::with_capacity(256 + lines.len() + body.len());
    response.extend_from_slice(b"HTTP/1.1 ");
    response.extend_from_slice(status.as_bytes());
    response.extend_from_slice(b"\r\n");
    let mut announced = false;
    for header in headers {
        let Ok(pair) = header.cast_exact::<PyTuple>() else { return Ok(None) };
        if pair.len() != 2 {
            return Ok(None);
        }
        let (name, value) = (pair.get_borrowed_item(0)?, pair.get_borrowed_item(1)?);
        let (Ok(name), Ok(value)) = (name.cast_exact::<PyString>(), value.cast_exact::<PyString>()) else {
            return Ok(None);
        };
        let (Ok(name), Ok(value)) = (name.to_str(), value.to_str()) else { return Ok(None) };
        if !is_token(name.as_bytes()) || !is_text(value.as_bytes()) || is_one_of(name, &SERVERS) {
            return Ok(None);
        }
        if name.eq_ignore_ascii_case("content-length") {
            let digits = value.bytes().all(|digit| digit.is_ascii_digit());
            if announced || !digits || value.parse() != Ok(body.len()) {
                return Ok(None);
            }
            announced = true;
        }
        for part in [name, ": ", value, "\r\n"] {
            response.extend_from_slice(part.as_bytes());
        }
    }
    response.extend_from_slice(lines.as_bytes());
    if !announced {
        if !whole {
            return Ok(None);
        }
        response.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
    }
    response.extend_from_slice(b"\r\n");
    response.extend_from_slice(body);
    Ok(Some((PyBytes::new(py, &response), code)))
}

/// RFC 9110 (5.6.2).
fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+.^_`|~-".contains(byte))
}
