//! A rouille application and WebSockets in one program, on one port: rwf has the port, and lets the application answer
//! what is no route of its own.

use std::io::Read;
use std::net::SocketAddr;

use rwf::http::Server;
use rwf::prelude::*;

/// A rouille application as a controller. Its answers are in memory, and it opens no WebSockets of its own.
struct Rouille(fn(&rouille::Request) -> rouille::Response);

#[async_trait]
impl Controller for Rouille {
    async fn handle(&self, request: &Request) -> Result<Response, Error> {
        let answer = (self.0)(&to_rouille(request));
        if answer.upgrade.is_some() {
            return Err(Error::new("this is for rwf: a route of its own, before those of rouille"));
        }
        let mut body = Vec::new();
        answer.data.into_reader_and_size().0.read_to_end(&mut body)?;
        let mut response = Response::new().status(answer.status_code);
        if !body.is_empty() {
            response = response.bytes(body);
        }
        for (name, value) in answer.headers {
            response = if name.eq_ignore_ascii_case("Content-Type") {
                response.header(&name, value)
            } else {
                response.append_header(&name, value)
            };
        }
        Ok(response)
    }
}

fn to_rouille(request: &Request) -> rouille::Request {
    let url = match request.query_string() {
        "" => request.path().to_owned(),
        query => format!("{}?{query}", request.path()),
    };
    let client = SocketAddr::new(request.client_ip(), request.peer_addr().port());
    let method = request.method().as_str();
    let headers = request.headers().map(|(name, value)| (name.to_owned(), value.to_owned()));
    let (headers, body) = (headers.collect(), request.body().to_vec());
    // Its name notwithstanding, it is how a request of another server is made.
    if request.is_secure() {
        rouille::Request::fake_https_from(client, method, url, headers, body)
    } else {
        rouille::Request::fake_http_from(client, method, url, headers, body)
    }
}

/// The application that was there before.
fn pages(request: &rouille::Request) -> rouille::Response {
    rouille::router!(request,
        (GET) (/) => { rouille::Response::html("<h1>Chat</h1>") },
        (GET) (/rooms/{room: String}) => {
            let page = request.get_param("page").unwrap_or_default();
            let agent = request.header("User-Agent").unwrap_or("nobody");
            let client = request.remote_addr().ip();
            rouille::Response::text(format!("{room}, page {page}, for {agent} at {client}"))
        },
        (POST) (/say) => {
            let said = rouille::try_or_400!(rouille::input::plain_text_body(request));
            rouille::Response::text(said.to_uppercase())
                .with_status_code(201)
                .with_additional_header("Set-Cookie", "a=1")
                .with_additional_header("Set-Cookie", "b=2")
        },
        (GET) (/broken) => { broken() },
        (GET) (/socket) => {
            rouille::try_or_400!(rouille::websocket::start::<String>(request, None)).0
        },
        _ => rouille::Response::empty_404()
    )
}

fn broken() -> rouille::Response {
    panic!("as the test wishes")
}

fn chat(mut socket: Socket) -> Result<(), Error> {
    while let Some(message) = socket.recv()? {
        socket.comms().notify().send(message)?;
    }
    Ok(())
}

fn server() -> Server {
    Server::new(vec![
        route!("/chat" => websocket(chat)),
        route!("/" => Rouille(pages)),
        route!("/*path" => Rouille(pages)),
    ])
}

#[test]
fn pages_are_rouilles_and_websockets_are_rwfs() {
    let server = rwf::testing::start(server());
    let page = server.get("/");
    assert_eq!((page.status(), page.text()), (200.into(), "<h1>Chat</h1>"));
    assert_eq!(page.header("Content-Type"), Some("text/html; charset=utf-8"));
    let mut client = server.connect("/chat");
    client.send("hello");
    assert_eq!(client.recv_text(), "hello");
    client.close(1000, "bye");
}

#[test]
fn what_a_request_says_reaches_the_application_and_its_answer_the_client() {
    let server = rwf::testing::start(server());
    let visitor = server.visitor().header("User-Agent", "a test");
    let page = visitor.get("/rooms/blue%20one?page=2&page=3");
    assert_eq!(page.text(), "blue one, page 2, for a test at 127.0.0.1");

    let visitor = server.visitor().header("Content-Type", "text/plain");
    let said = visitor.post("/say", "hello".repeat(10_000));
    assert_eq!((said.status(), said.text()), (201.into(), &*"HELLO".repeat(10_000)));
    let cookies: Vec<_> = said.headers().filter(|(name, _)| *name == "Set-Cookie").collect();
    assert_eq!(cookies, [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")]);
}

#[test]
fn what_goes_wrong_is_answered() {
    let server = rwf::testing::start(server());
    assert_eq!(server.post("/say", "without a type").status(), 400);
    assert_eq!(server.get("/nowhere").status(), 404);
    assert_eq!(server.get("/broken").status(), 500);
    let refused = server.try_connect("/socket").unwrap_err();
    assert_eq!(refused.status(), 500);
    assert_eq!(server.get("/").status(), 200, "and it goes on");
}
