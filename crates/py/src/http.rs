//! The common case of HTTP/1.1, compiled: the head of a whole request that has no body and asks for nothing special,
//! and a response whose body is one piece of known length.
//!
//! What is not the common case is None, and is read or written by `manyhands.server`, which alone knows what is refused
//! and why: there is no second opinion here on a request that somebody could play against the first one. So a head is
//! taken only if every byte of it is one that the other way takes as well, and means the same there; the tests
//! compare the two.

use manyhands_core::sync::Mutex;
use pyo3::PyTraverseError;
use pyo3::exceptions::PyRuntimeError;
use pyo3::gc::PyVisit;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString, PyTuple};

use crate::once::Once;

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

/// RFC 9110 (5.6.2).
fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+.^_`|~-".contains(byte))
}

/// Whether a line or a head cannot end in it, and it is ASCII.
fn is_text(text: &[u8]) -> bool {
    text.iter().all(|byte| matches!(byte, b'\t' | 0x20..=0x7e))
}

/// A string of ASCII. PyO3's constructors panic without memory, and the client says how long it is.
fn text<'py>(py: Python<'py>, ascii: &[u8]) -> PyResult<Bound<'py, PyString>> {
    PyString::from_bytes(py, ascii)
}

fn bytes<'py>(py: Python<'py>, data: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    PyBytes::new_with(py, data.len(), |to| {
        to.copy_from_slice(data);
        Ok(())
    })
}

/// What is taken of a head, beside its headers.
struct Head<'a> {
    method: &'a str,
    target: &'a str,
    headers: usize,
}

/// Reads a head that is the common case, and its headers into `headers`.
fn read<'a>(data: &'a [u8], headers: &mut [httparse::Header<'a>]) -> Option<Head<'a>> {
    // Every line ends in CR LF, and nothing follows the blank one. llhttp and httparse differ in what else they take.
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
    // httparse skips blanks between the words of the first line.
    let first = method.len() + target.len() + " HTTP/1.1\r\n".len() + 1;
    let headers = request.headers.len();
    let whole = end == data.len() && lines == headers + 2 && data.get(first - 1) == Some(&b'\n');
    let (path, _) = split_target(target);
    let plain = path.starts_with('/') && !path.contains('%') && !target.contains('#');
    (whole && plain).then_some(Head { method, target, headers })
}

/// Path and query.
fn split_target(target: &str) -> (&str, Option<&str>) {
    target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)))
}

/// Whether the headers have one good Host, and nothing that is not for the application alone.
fn are_plain(headers: &[httparse::Header<'_>]) -> bool {
    let mut hosts = 0;
    headers.iter().all(|header| {
        if header.name.eq_ignore_ascii_case("host") {
            hosts += 1;
            is_authority(header.value)
        } else if header.name.eq_ignore_ascii_case("connection") {
            header.value.eq_ignore_ascii_case(b"keep-alive")
        } else {
            !is_one_of(header.name, &SPECIAL)
        }
    }) && hosts == 1
}

fn keys(py: Python<'_>) -> PyResult<&'static [Py<PyString>]> {
    static MADE: Once<Vec<Py<PyString>>> = Once::new();
    let made = MADE.get_or_try_init(|| Ok(KEYS.iter().map(|(_, key)| PyString::intern(py, key).unbind()).collect()))?;
    Ok(made)
}

/// `io.BytesIO`: a body without a byte is an empty one.
fn body_class(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    static CLASS: Once<Py<PyAny>> = Once::new();
    CLASS.import(py, "io", "BytesIO")
}

/// Makes what is made once, while there is memory.
pub fn install(py: Python<'_>) -> PyResult<()> {
    keys(py)?;
    body_class(py)?;
    Ok(())
}

/// A header's key in the environ; None for one that is dropped: see `manyhands.server._environ`.
fn key_of<'py>(py: Python<'py>, name: &str) -> PyResult<Option<Bound<'py, PyString>>> {
    let known = KEYS.iter().position(|(known, _)| name.eq_ignore_ascii_case(known));
    if let Some(known) = known {
        return Ok(Some(keys(py)?[known].bind(py).clone()));
    }
    if name.contains('_') || name.eq_ignore_ascii_case("proxy") {
        return Ok(None);
    }
    let upper = |byte: u8| if byte == b'-' { b'_' } else { byte.to_ascii_uppercase() };
    let key: Vec<u8> = b"HTTP_".iter().copied().chain(name.bytes().map(upper)).collect();
    text(py, &key).map(Some)
}

/// Puts the headers into the environ. False if one came twice: the two are to be joined.
fn put_headers(environ: &Bound<'_, PyDict>, headers: &[httparse::Header<'_>]) -> PyResult<bool> {
    let py = environ.py();
    let mut size = environ.len();
    for header in headers {
        let Some(key) = key_of(py, header.name)? else { continue };
        environ.set_item(key, text(py, header.value)?)?;
        size += usize::from(!header.name.eq_ignore_ascii_case("host")); // which the template has
    }
    Ok(environ.len() == size)
}

/// A request as nearly all are: GET or HEAD of a path by HTTP/1.1, without a body, on a connection that is kept.
///
/// Attributes:
///     method: As it was sent.
///     name: The method and the path.
///
/// What is the same for all of them has the names that it has in `manyhands.server._head.Request`.
#[pyclass(frozen, module = "manyhands._core")]
pub struct PlainRequest {
    #[pyo3(get)]
    method: Py<PyString>,
    #[pyo3(get)]
    name: Py<PyString>,
    environ: Mutex<Option<Py<PyDict>>>,
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

    /// The environ, which was made as the head was read; once. It is the application's from then on, and the response
    /// may outlive it.
    fn take_environ(&self) -> PyResult<Py<PyDict>> {
        let environ = self.environ.lock().take();
        environ.ok_or_else(|| PyRuntimeError::new_err("the environ of this request was taken before"))
    }

    /// As it was sent.
    #[getter]
    fn target<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let target = self.head.as_bytes(py).split(|byte| *byte == b' ').nth(1);
        bytes(py, target.unwrap_or_default())
    }

    /// list of (name, value), both bytes, as they were sent and in order; no blanks around the values.
    #[getter]
    fn headers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
        let found = read(self.head.as_bytes(py), &mut headers).map_or(0, |head| head.headers);
        let list = PyList::empty(py);
        for header in &headers[..found] {
            list.append((bytes(py, header.name.as_bytes())?, bytes(py, header.value)?))?;
        }
        Ok(list)
    }

    /// Let go of the body, of which there is none.
    #[expect(clippy::unused_self, reason = "a method of every request")]
    fn close(&self) {}

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!("<PlainRequest {}>", self.name.bind(py).repr()?))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // Whoever has the lock is taking it out.
        self.environ.try_lock().map_or(Ok(()), |environ| environ.as_ref().map_or(Ok(()), |dict| visit.call(dict)))
    }

    fn __clear__(&self) {
        let environ = self.environ.lock().take();
        drop(environ);
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
/// Raises:
///     MemoryError: there is none for it.
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
    let Some(head) = read(data.as_bytes(), &mut headers[..most.min(MOST_HEADERS)]) else { return Ok(None) };
    let headers = &headers[..head.headers];
    if !are_plain(headers) {
        return Ok(None);
    }
    let environ = template.copy()?;
    if !put_headers(&environ, headers)? {
        return Ok(None);
    }
    let method = if head.method == "GET" { intern!(py, "GET") } else { intern!(py, "HEAD") };
    let (path, query) = split_target(head.target);
    let target = text(py, head.target.as_bytes())?;
    environ.set_item(intern!(py, "REQUEST_METHOD"), method)?;
    environ.set_item(intern!(py, "REQUEST_URI"), &target)?;
    environ.set_item(intern!(py, "RAW_URI"), &target)?;
    let path_info = if query.is_none() { target } else { text(py, path.as_bytes())? };
    environ.set_item(intern!(py, "PATH_INFO"), path_info)?;
    if let Some(query) = query {
        environ.set_item(intern!(py, "QUERY_STRING"), text(py, query.as_bytes())?)?;
    }
    let (address, port) = remote;
    if address.len()? > 0 {
        environ.set_item(intern!(py, "REMOTE_ADDR"), address)?;
        environ.set_item(intern!(py, "REMOTE_PORT"), text(py, port.to_string().as_bytes())?)?;
    } else {
        environ.del_item(intern!(py, "REMOTE_ADDR"))?;
        environ.del_item(intern!(py, "REMOTE_PORT"))?;
    }
    environ.set_item(intern!(py, "wsgi.input"), body_class(py)?.call0()?)?;
    let name = text(py, &[head.method.as_bytes(), path.as_bytes()].join(&b' '))?.unbind();
    let (method, head) = (method.clone().unbind(), data.clone().unbind());
    Ok(Some(PlainRequest { method, name, environ: Mutex::new(Some(environ.unbind())), head }))
}

/// A response as it is written; None from whatever cannot go on, for want of memory too.
struct Writer(Vec<u8>);

impl Writer {
    fn put(&mut self, parts: &[&[u8]]) -> Option<()> {
        self.0.try_reserve(parts.iter().map(|part| part.len()).sum()).ok()?;
        parts.iter().for_each(|part| self.0.extend_from_slice(part));
        Some(())
    }

    /// The status line; the status as a number.
    fn put_status(&mut self, status: &Bound<'_, PyAny>) -> Option<u16> {
        let status = status.cast_exact::<PyString>().ok()?.to_str().ok()?;
        let code =
            status.get(..3)?.parse().ok().filter(|code| (200..600).contains(code) && ![204, 304].contains(code))?;
        let good = is_text(status.as_bytes()) && matches!(status.as_bytes().get(3), None | Some(b' '));
        self.put(&[b"HTTP/1.1 ", good.then_some(status)?.as_bytes(), b"\r\n"])?;
        Some(code)
    }

    /// A header of the application's; whether it says how long the body is.
    fn put_header(&mut self, header: &Bound<'_, PyAny>, length: usize) -> Option<bool> {
        let pair = header.cast_exact::<PyTuple>().ok().filter(|pair| pair.len() == 2)?;
        let (name, value) = (pair.get_borrowed_item(0).ok()?, pair.get_borrowed_item(1).ok()?);
        let (name, value) = (name.cast_exact::<PyString>().ok()?, value.cast_exact::<PyString>().ok()?);
        let (name, value) = (name.to_str().ok()?, value.to_str().ok()?);
        if !is_token(name.as_bytes()) || !is_text(value.as_bytes()) || is_one_of(name, &SERVERS) {
            return None;
        }
        let announces = name.eq_ignore_ascii_case("content-length");
        if announces && !(value.bytes().all(|digit| digit.is_ascii_digit()) && value.parse() == Ok(length)) {
            return None;
        }
        self.put(&[name.as_bytes(), b": ", value.as_bytes(), b"\r\n"])?;
        Some(announces)
    }
}

/// Write a response whose body is one piece and whose head is nothing special, for a connection that is kept.
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
/// Raises:
///     MemoryError: there is none for it.
///
/// Threads: any.
#[pyfunction]
pub fn plain_response<'py>(
    py: Python<'py>,
    status: &Bound<'py, PyAny>,
    headers: &Bound<'py, PyAny>,
    body: &Bound<'py, PyAny>,
    lines: &str,
    whole: bool,
    most: usize,
) -> PyResult<Option<(Bound<'py, PyBytes>, u16)>> {
    let written = || -> Option<(Writer, u16)> {
        let body = body.cast_exact::<PyBytes>().ok()?.as_bytes();
        let mut response = Writer(Vec::new());
        response.0.try_reserve(256 + lines.len() + body.len()).ok().filter(|()| body.len() <= most)?;
        let code = response.put_status(status)?;
        let mut announced = 0;
        // A subclass may have other items than it stores.
        for header in headers.cast_exact::<PyList>().ok()? {
            announced += usize::from(response.put_header(&header, body.len())?);
        }
        response.put(&[lines.as_bytes()])?;
        match announced {
            0 if whole => response.put(&[format!("Content-Length: {}\r\n", body.len()).as_bytes()])?,
            1 => {}
            _ => return None,
        }
        response.put(&[b"\r\n", body])?;
        Some((response, code))
    };
    written().map(|(response, code)| Ok((bytes(py, &response.0)?, code))).transpose()
}
