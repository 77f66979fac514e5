//! Parsing the request of a new connection, from bytes to names and values.

use divan::Bencher;
use divan::counter::BytesCount;
use rwf::parts::Requests;

const MINIMAL: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
const BROWSER: &[u8] = b"GET /websocket HTTP/1.1\r\n\
    Host: chat.example.com\r\n\
    Connection: Upgrade\r\n\
    Pragma: no-cache\r\n\
    Cache-Control: no-cache\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 \
    Safari/537.36\r\n\
    Upgrade: websocket\r\n\
    Origin: https://chat.example.com\r\n\
    Sec-WebSocket-Version: 13\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Accept-Language: en-GB,en-US;q=0.9,en;q=0.8\r\n\
    Cookie: rwf_session=4c1f3fb5-9a43-4b55-8c11-0d9a3f1b7a62; theme=dark\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\
    Sec-WebSocket-Protocol: chat.v2, chat.v1\r\n\
    DNT: 1\r\n\r\n";

fn bench(bencher: Bencher<'_, '_>, wire: &[u8], headers: usize) {
    let requests = Requests::default();
    assert_eq!(requests.parse(wire), headers);
    bencher.counter(BytesCount::of_slice(wire)).bench(|| requests.parse(divan::black_box(wire)));
}

#[divan::bench(sample_size = 1000)]
fn minimal(bencher: Bencher<'_, '_>) {
    bench(bencher, MINIMAL, 1);
}

#[divan::bench(sample_size = 1000)]
fn browser_handshake(bencher: Bencher<'_, '_>) {
    bench(bencher, BROWSER, 15);
}
